package main

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"ntsagent/agent/status"
)

// startAgent starts the real agent and waits until it listens. Both challenges
// listen; the one that was asked for comes first.
func (l *lab) startAgent(ctx context.Context) error {
	anyPort := []string{loopback4 + ":0", "[" + loopback6 + "]:0"}
	challenges := []string{"http-01", "tls-alpn-01"}
	if l.o.challenge == challenges[1] {
		challenges[0], challenges[1] = challenges[1], challenges[0]
	}
	l.config = agentConfig{
		name: memberName, directory: l.ca.directory, acmeCA: l.w.path("acme-ca.pem"), challenges: challenges,
		ke: anyPort, http01: anyPort, tlsALPN01: anyPort,
		daemon:   l.daemon.section,
		resolver: l.names.addr,
		stateDir: l.w.path("state"), socket: filepath.Join(l.w.socketDir, "control.sock"),
	}
	configFile := l.w.path("ntsagent.yaml")
	if err := writeFile(configFile, []byte(l.config.text())); err != nil {
		return err
	}
	var err error
	if l.agent, err = startChild("ntsagent", exec.Command(l.prog, "run", "--config", configFile), l.w.path("log", "ntsagent.log")); err != nil {
		return err
	}
	return l.wait(ctx, time.Minute, "the agent to listen", func(ctx context.Context) error {
		doc, err := status.NewClient(l.config.socket).Status(ctx)
		if err != nil {
			return err
		}
		http01, tlsALPN01 := listening(doc, status.ServiceHTTP01), listening(doc, status.ServiceTLSALPN01)
		if len(http01) < 2 || len(tlsALPN01) < 2 {
			return fmt.Errorf("it listens for http-01 at %v and for tls-alpn-01 at %v", http01, tlsALPN01)
		}
		l.config.http01, l.config.tlsALPN01 = http01, tlsALPN01
		l.story.tell("agent", "ntsagent runs (pid %d), ready to prove its name: http-01 at %s, tls-alpn-01 at %s", l.agent.pid,
			strings.Join(http01, " "), strings.Join(tlsALPN01, " "))
		return nil
	})
}

func (l *lab) startAuthority(ctx context.Context) error {
	log, err := os.OpenFile(l.w.path("log", "pebble.log"), os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		return fmt.Errorf("open the authority's log: %w", err)
	}
	httpPort, tlsPort := portIn(l.config.http01), portIn(l.config.tlsALPN01)
	l.teller = &narrator{story: l.story, log: log, proofs: map[string]string{
		"http-01":     fmt.Sprintf("http://%s:%d/.well-known/acme-challenge/…", memberName, httpPort),
		"tls-alpn-01": fmt.Sprintf("a TLS handshake (acme-tls/1) with %s:%d", memberName, tlsPort),
	}}
	root, err := l.ca.serve(l.names.addr, httpPort, tlsPort, l.teller)
	if err != nil {
		return err
	}
	l.caFile = l.w.path("ca.pem")
	return writeFile(l.caFile, root)
}

func (l *lab) awaitCertificate(ctx context.Context) error {
	err := l.wait(ctx, 90*time.Second, "a certificate", func(ctx context.Context) error {
		doc, err := status.NewClient(l.config.socket).Status(ctx)
		if err != nil {
			return err
		}
		if len(doc.Certificates) != 1 || !doc.Certificates[0].Valid(time.Now()) {
			return fmt.Errorf("its status is %s: %s", doc.State, strings.Join(doc.Reasons, "; "))
		}
		c := doc.Certificates[0]
		ke := listening(doc, status.ServiceKE)
		if len(ke) < 2 {
			return fmt.Errorf("the certificate is there, but key exchange listens at %v", ke)
		}
		ntp, err := l.servesAt(doc)
		if err != nil {
			return err
		}
		l.config.ke, l.ntp = ke, ntp
		l.story.tell("certificate", "obtained for %s from %s, good until %s", c.Name, c.Issuer, c.NotAfter.Format(time.DateOnly))
		l.story.tell("agent", "key exchange (NTS-KE) listens at %s", strings.Join(ke, " "))
		if l.o.daemon == "gateway" {
			l.config.daemon = gatewaySection(l.daemon.ntp[0], ntp)
			l.story.tell("agent", "its gateway speaks NTS for that server at %s", strings.Join(ntp, " "))
		}
		return nil
	})
	if err != nil {
		return err
	}
	if used := l.teller.answered.Load(); used != l.o.challenge {
		return fmt.Errorf("the certificate was obtained with %v instead of %s; %s", used, l.o.challenge, l.agent.said("the agent"))
	}
	return nil
}

// servesAt is where clients find the time: at the agent's gateway, or at the
// daemon itself.
func (l *lab) servesAt(doc status.Document) ([]string, error) {
	if l.o.daemon != "gateway" {
		return l.daemon.ntp, nil
	}
	ntp := listening(doc, status.ServiceNTP)
	if len(ntp) < 2 {
		return nil, fmt.Errorf("the certificate is there, but the gateway listens at %v", ntp)
	}
	return ntp, nil
}

func (l *lab) awaitKeys(ctx context.Context) error {
	return l.wait(ctx, time.Minute, "proven cookie keys", func(ctx context.Context) error {
		doc, err := status.NewClient(l.config.socket).Status(ctx)
		if err != nil {
			return err
		}
		k := doc.Keys
		if k.State != status.KeysProven {
			return fmt.Errorf("the cookie keys are %s: %s", k.State, k.Why)
		}
		switch k.Mode {
		case "own":
			l.story.tell("keys", "made by the agent for its gateway and proven: it opened cookies made under its key %s", k.Current.ID)
		case "follow":
			l.story.tell("keys", "read from %s's own key file and proven: it opened cookies made under its key %s", l.daemon.name, k.Current.ID)
		default:
			l.story.tell("keys", "handed over to %s and proven: it opened cookies made under %d of our keys (current %s, next %s)",
				l.daemon.name, len(k.Held), k.Current.ID, k.Next.ID)
		}
		return nil
	})
}

// checkArgs is the command line with which a stranger checks the lab.
func (l *lab) checkArgs() []string {
	return []string{"check", "--ca", l.caFile, "--resolver", l.names.addr, fmt.Sprintf("%s:%d", memberName, portIn(l.config.ke))}
}

// check runs `ntsagent check`: the first authenticated replies, and proof that
// the command told to the reader works. It has seconds for its way, which a
// machine may stand still for: what it found is told, and it is run once more.
func (l *lab) check(ctx context.Context) error {
	const tries, within = 3, 45 * time.Second
	for try := 1; ; try++ {
		one, cancel := context.WithTimeout(ctx, within)
		out, err := exec.CommandContext(one, l.prog, l.checkArgs()...).CombinedOutput()
		cancel()
		if err == nil {
			l.story.tell("reply", "authenticated by cookies of that key; ntsagent check, as a stranger, saw:")
			l.story.show(string(out))
			return nil
		}
		if try == tries || ctx.Err() != nil {
			return fmt.Errorf("ntsagent check: %w; %s", err, said("it", out))
		}
		l.story.tell("check", "it is run once more: %v; it saw:", err)
		l.story.show(string(out))
	}
}
