package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"ntsagent/packaging/parts"
)

// memberName is the pool member the lab plays. .test is reserved (RFC 6761):
// nobody outside can own it.
const memberName = "alice.pool.test"

// lab is everything that runs, in the order in which it starts.
type lab struct {
	o      options
	story  *story
	w      *workspace
	prog   string // the ntsagent program
	names  *nameServer
	daemon *daemon
	ca     *authority
	teller *narrator
	agent  *child
	config agentConfig
	ntp    []string // where clients find the time
	caFile string
}

// runLab builds the lab, checks it like a stranger, and keeps it up until ctx
// ends. Everything it started has ended when it returns.
func runLab(ctx context.Context, o options, s *story) error {
	prog, err := findAgent(o.agent)
	if err != nil {
		return err
	}
	w, err := openWorkspace(o.dir)
	if err != nil {
		return err
	}
	defer w.close()
	l := &lab{o: o, story: s, w: w, prog: prog}
	defer l.stop()

	s.tell("lab", "a pool member on this machine's loopback; everything is in %s", w.dir)
	for _, step := range []func(context.Context) error{
		l.startNames, l.startDaemon, l.openAuthority, l.startAgent, l.startAuthority, l.awaitCertificate, l.awaitKeys, l.check, l.announce,
	} {
		if err := step(ctx); err != nil {
			return err
		}
	}
	if o.once {
		return nil
	}
	return l.keep(ctx)
}

// stop takes the lab down, first of all the file that says that it is up.
func (l *lab) stop() {
	os.Remove(l.w.path(envName)) // often not there yet
	if l.agent != nil {
		l.agent.stop()
	}
	if l.daemon != nil {
		l.daemon.stop()
	}
	if l.ca != nil {
		l.ca.stop()
	}
	if l.teller != nil {
		l.teller.log.Close()
	}
	if l.names != nil {
		l.names.stop()
	}
}

func (l *lab) startNames(ctx context.Context) (err error) {
	if l.names, err = startNames(ctx, memberName); err != nil {
		return err
	}
	l.story.tell("dns", "%s answers: %s is 127.0.0.1 and ::1", l.names.addr, memberName)
	return nil
}

func (l *lab) startDaemon(ctx context.Context) error {
	var err error
	if l.daemon, err = startDaemon(ctx, l.o.daemon, l.w, l.story); err != nil {
		return err
	}
	l.story.tell("daemon", "%s", l.daemon.line)
	return nil
}

func (l *lab) openAuthority(ctx context.Context) (err error) {
	if l.ca, err = openAuthority(ctx, time.Now()); err != nil {
		return err
	}
	if err := writeFile(l.w.path("acme-ca.pem"), l.ca.tlsRoot); err != nil {
		return err
	}
	l.story.tell("acme", "pebble is the certificate authority: %s", l.ca.directory)
	return nil
}

// announce writes down where everything is: the agent's configuration gets the
// ports it chose, so that it comes back to them; lab.env is last.
func (l *lab) announce(context.Context) error {
	configFile := l.w.path("ntsagent.yaml")
	if err := writeFile(configFile, []byte(l.config.text())); err != nil {
		return err
	}
	e := env{
		Name: memberName, KE: l.config.ke[0], NTP: l.ntp[0], HTTP: l.config.http01[0], TLSALPN: l.config.tlsALPN01[0], DNS: l.names.addr,
		CA: l.caFile, ACME: l.ca.directory, ACMECA: l.config.acmeCA,
		Config: configFile, Socket: l.config.socket, AgentPID: l.agent.pid,
	}
	if err := writeFile(l.w.path(envName), []byte(e.text())); err != nil {
		return err
	}
	if l.o.once {
		l.story.tell("done", "the line works from the certificate to the cookie")
		return nil
	}
	l.story.tell("ready", "it stays up until Ctrl-C. From another terminal, in this folder:")
	l.story.show(l.shown() + " " + strings.Join(l.checkArgs(), " ") + "\n" +
		l.shown() + " status --socket " + l.config.socket + "\n" +
		". " + l.w.path(envName) + "   # the same names and addresses as shell variables")
	return nil
}

// shown is the agent's program as a reader in this folder would write it.
func (l *lab) shown() string {
	if wd, err := os.Getwd(); err == nil {
		if rel, err := filepath.Rel(wd, l.prog); err == nil && !strings.HasPrefix(rel, "..") {
			if !strings.Contains(rel, "/") {
				rel = "./" + rel
			}
			return rel
		}
	}
	return l.prog
}

// keep holds the lab up until ctx ends. An agent that dies leaves the rest up,
// so that it can be started again by hand; a daemon that dies ends the lab.
func (l *lab) keep(ctx context.Context) error {
	agentEnded := l.agent.ended
	for {
		select {
		case <-ctx.Done():
			l.story.tell("end", "stopping the agent, the daemon, the authority and its DNS")
			return nil
		case <-l.daemon.over():
			return l.daemon.gone()
		case <-agentEnded:
			agentEnded = nil
			l.story.tell("agent", "it is gone (%v); the rest stays up. To start it again where it was:", l.agent.err)
			l.story.show(l.shown() + " run --config " + l.w.path("ntsagent.yaml"))
		}
	}
}

// wait calls try until it succeeds, the time is up or a child is gone.
func (l *lab) wait(ctx context.Context, most time.Duration, what string, try func(context.Context) error) error {
	err := eventually(ctx, most, func(ctx context.Context) error {
		for _, c := range []*child{l.agent, l.daemon.child} {
			if gone := c.gone(); gone != nil {
				return inVain{gone}
			}
		}
		return try(ctx)
	})
	if _, vain := err.(inVain); err == nil || vain {
		return err
	}
	return fmt.Errorf("waited %v for %s: %w; %s", most, what, err, l.agent.said("the agent"))
}

// repoDir is the repository of this program, or of the current folder.
func repoDir() (string, error) {
	if self, err := os.Executable(); err == nil {
		if dir, err := parts.RepoDir(filepath.Dir(self)); err == nil {
			return dir, nil
		}
	}
	wd, err := os.Getwd()
	if err != nil {
		return "", fmt.Errorf("find the repository: %w", err)
	}
	return parts.RepoDir(wd)
}
