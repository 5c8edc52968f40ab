package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"os/user"
	"path/filepath"
	"time"

	"ntsagent/cmd/ntsbench/load"
	"ntsagent/ntske/client"
	"ntsagent/packaging/parts"
)

// chronyd is a running chronyd 4.3.
type chronyd struct {
	server
	dir, conf string
}

// startChronyd runs the chronyd of root with these lines besides those every one
// needs. It cannot be handed sockets, so a port that something else was faster
// to take makes it start again with others.
func (s *servers) startChronyd(ctx context.Context, root parts.Root, name string, lines func(dir string) string) (chronyd, error) {
	var d chronyd
	var err error
	for range 3 {
		if d, err = s.tryChronyd(ctx, root, name, lines); err == nil || ctx.Err() != nil {
			break
		}
	}
	return d, err
}

func (s *servers) tryChronyd(ctx context.Context, root parts.Root, name string, lines func(dir string) string) (chronyd, error) {
	dir, err := s.folder("chronyd")
	if err != nil {
		return chronyd{}, err
	}
	kePort, err := freePort(s.host)
	if err != nil {
		return chronyd{}, err
	}
	port, err := freePort(s.host)
	if err != nil {
		return chronyd{}, err
	}
	d := chronyd{dir: dir, conf: filepath.Join(dir, "chrony.conf")}
	d.ke, d.ntp = s.target(netip.AddrPortFrom(s.host, kePort)), netip.AddrPortFrom(s.host, port)
	text := fmt.Sprintf(`port %d
bindaddress %s
local stratum 1
allow
cmdport 0
pidfile %s
ntsport %d
ntsserverkey %s
ntsservercert %s
%s`, port, s.host, filepath.Join(dir, "pid"), kePort, s.id.key, s.id.cert, lines(dir))
	if err := os.WriteFile(d.conf, []byte(text), 0o600); err != nil {
		return chronyd{}, fmt.Errorf("write the configuration of %s: %w", name, err)
	}
	me, err := user.Current()
	if err != nil {
		return chronyd{}, fmt.Errorf("find the user for %s: %w", name, err)
	}
	// -x: the clock is never touched; -U: root is not needed.
	cmd := root.Command(context.WithoutCancel(ctx), "chronyd", "-U", "-x", "-d", "-u", me.Username, "-f", d.conf)
	if d.child, err = s.start(name, dir, cmd); err != nil {
		return chronyd{}, err
	}
	err = d.wait(ctx, "to tell the time", func(ctx context.Context) error {
		_, err := client.Plain(ctx, d.ntp)
		return err
	})
	if err == nil {
		err = d.hasItsPorts()
	}
	if err != nil {
		d.stop() // or it would use the CPU beside the next
	}
	return d, err
}

// hasItsPorts says which port it could not have. Without the one for key exchanges chronyd goes on.
func (c *child) hasItsPorts() error {
	if err := c.gone(); err != nil {
		return err // and somebody else tells the time there
	}
	log, err := os.ReadFile(c.log)
	if err == nil && bytes.Contains(log, []byte("Could not open ")) {
		err = fmt.Errorf("%s lacks a socket%s", c.name, c.said())
	}
	return err
}

// chronydRoom has chronyd hold as many connections as it can; it may hold fewer.
const chronydRoom = "maxntsconnections 10000\n"

// startServing runs a chronyd that serves NTS-KE itself, with these lines more.
func (s *servers) startServing(ctx context.Context, root parts.Root, lines string) (server, error) {
	d, err := s.startChronyd(ctx, root, "chronyd", func(string) string {
		return "bindcmdaddress /\nntsprocesses 1\n" + lines
	})
	if err != nil {
		return server{}, err
	}
	return d.server, d.serves(ctx)
}

// tellsTime waits for the first authenticated reply that is not of a clock
// without the time.
func (s *server) tellsTime(ctx context.Context) error {
	return s.wait(ctx, "to tell the time", func(ctx context.Context) error {
		res, err := client.KeyExchange(ctx, client.Config{Addr: s.ke.Addr, Name: s.ke.Name, Roots: s.ke.Roots})
		if err != nil {
			return err
		}
		reply, err := client.Query(ctx, s.ntp, res.Keys, res.Cookies[0], 0)
		if err == nil && (reply.Header.Leap == 3 || reply.Header.Stratum == 0) {
			err = errors.New("it has not got the time itself")
		}
		return err
	})
}

// serves waits for the first whole session.
func (s *server) serves(ctx context.Context) error {
	return s.wait(ctx, "to exchange keys", func(ctx context.Context) error {
		return load.Probe(ctx, s.ke, 1, time.Second).FirstErr
	})
}
