package main

import (
	"context"
	"encoding/json"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"

	"ntsagent/agent/status"
)

// agentServer is a running ntsagent and the daemon it works with.
type agentServer struct {
	server
	daemon server
	socket string // for control
}

// startAgent runs ntsagent beside a chronyd it feeds and waits until its keys
// are proven. keLines are added to its configuration's ke: {…}.
func (s *servers) startAgent(ctx context.Context, keLines string) (agent, daemon server, err error) {
	d, err := s.startChronyd(ctx, s.chrony, "the agent's chronyd", func(dir string) string {
		return fmt.Sprintf("bindcmdaddress %s/chronyd.sock\nntsdumpdir %s\nntsrotate 0\n", dir, dir)
	})
	if err != nil {
		return agent, daemon, err
	}
	a, err := s.runAgent(ctx, d.server, keLines, fmt.Sprintf(`  kind: chrony
  chrony: {keys_file: %s, command_socket: %s, config_file: %s}
`, quote(filepath.Join(d.dir, "ntskeys")), quote(filepath.Join(d.dir, "chronyd.sock")), quote(d.conf)))
	a.ntp = d.ntp
	return a.server, a.daemon, err
}

// startGateway runs ntsagent as a gateway without limits in front of a chronyd
// that is not asked for NTS.
func (s *servers) startGateway(ctx context.Context) (agentServer, error) {
	d, err := s.startChronyd(ctx, s.chrony, "the plain chronyd", func(string) string { return "bindcmdaddress /\n" })
	if err != nil {
		return agentServer{}, err
	}
	a, err := s.runAgent(ctx, d.server, "", fmt.Sprintf(`  kind: gateway
  gateway: {listen: [%s], mode: mirror, limits: {per_prefix: 0}}
`, quote(s.anyPort().String())))
	if err != nil {
		return a, err
	}
	a.name = "the gateway"
	return a, a.tellsTime(ctx)
}

// runAgent runs ntsagent with a daemon and waits until its keys are proven.
func (s *servers) runAgent(ctx context.Context, daemon server, keLines, daemonLines string) (a agentServer, err error) {
	dir, err := s.folder("agent")
	if err != nil {
		return a, err
	}
	conf := filepath.Join(dir, "ntsagent.yaml")
	a.socket, a.daemon = filepath.Join(dir, "control.sock"), daemon
	// Every value is JSON, which YAML includes.
	text := fmt.Sprintf(`names: [%s]
certificate: {source: files, cert: %s, key: %s}
ke: {listen: [%s]%s}
daemon:
  address: %s
%sobserve: {socket: %s}
state_dir: %s
`, quote(benchName), quote(s.id.cert), quote(s.id.key), quote(s.anyPort().String()), keLines, quote(daemon.ntp.String()), daemonLines,
		quote(a.socket), quote(filepath.Join(dir, "state")))
	if err := os.WriteFile(conf, []byte(text), 0o600); err != nil {
		return a, fmt.Errorf("write the agent's configuration: %w", err)
	}
	if a.child, err = s.start("ntsagent", dir, exec.Command(s.agent, "run", "--config", conf)); err != nil {
		return a, err
	}
	return a, a.wait(ctx, "to serve with proven keys", func(ctx context.Context) error { return a.ready(ctx, s) })
}

// ready notes where the agent listens, once it serves with proven keys.
func (a *agentServer) ready(ctx context.Context, s *servers) error {
	doc, err := status.NewClient(a.socket).Status(ctx)
	if err != nil {
		return err
	}
	if doc.Keys.State != status.KeysProven {
		return fmt.Errorf("its cookie keys are %s: %s", doc.Keys.State, doc.Keys.Why)
	}
	for _, l := range doc.Listeners {
		at, err := netip.ParseAddrPort(l.Address)
		switch {
		case err != nil || !l.Open:
		case l.Service == status.ServiceKE:
			a.ke = s.target(at)
		case l.Service == status.ServiceNTP:
			a.ntp = at
		}
	}
	if !a.ke.Addr.IsValid() {
		return fmt.Errorf("it does not listen: %v", doc.Reasons)
	}
	return nil
}

// quote writes a string as JSON.
func quote(v string) string {
	b, err := json.Marshal(v)
	if err != nil {
		panic(err) // strings always encode
	}
	return string(b)
}
