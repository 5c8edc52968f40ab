package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"ntsagent/cmd/ntsbench/load"
	"ntsagent/packaging/parts"
)

// server is one that is measured: a process and where it answers.
type server struct {
	*child
	ke  load.KETarget
	ntp netip.AddrPort
}

// servers starts servers and ends them. All of them live on one loopback address
// and show the same certificate.
type servers struct {
	dir    string // of everything
	agent  string // path of ntsagent
	self   string // path of this program, for the floors
	repo   string // our source tree
	host   netip.Addr
	cpus   cpus
	chrony parts.Root
	id     identity
	all    []*child
	count  int // of folders
}

// openServers makes the folder, the certificate and chronyd ready.
func openServers(ctx context.Context, c cpus, host netip.Addr, agent string, say func(format string, args ...any)) (*servers, error) {
	s := &servers{cpus: c, host: host, agent: agent}
	var err error
	if s.self, err = os.Executable(); err != nil {
		return nil, fmt.Errorf("find this program: %w", err)
	}
	if s.repo, err = sourceTree(filepath.Dir(s.self), "."); err != nil {
		return nil, err
	}
	say("make chronyd %s ready in %s; the first time it is downloaded", parts.Debian12.Chrony, filepath.Join(s.repo, ".parts"))
	if s.chrony, err = parts.UnpackChrony(ctx, s.repo, parts.Debian12); err != nil {
		return nil, err
	}
	if s.dir, err = os.MkdirTemp("", "ntsbench-"); err != nil {
		return nil, fmt.Errorf("make a temporary folder: %w", err)
	}
	if s.id, err = newIdentity(s.dir, time.Now()); err != nil {
		s.close()
		return nil, err
	}
	return s, nil
}

// sourceTree finds ours, in or above one of the folders.
func sourceTree(dirs ...string) (string, error) {
	for _, dir := range dirs {
		dir, err := filepath.Abs(dir)
		if err != nil {
			return "", fmt.Errorf("find the source tree: %w", err)
		}
		repo, err := parts.RepoDir(dir)
		if err != nil {
			continue
		}
		if _, err := os.Stat(filepath.Join(repo, "cmd", "ntsbench")); err == nil {
			return repo, nil
		}
	}
	return "", errors.New("ntsbench bench needs its source tree, for chronyd in .parts/; run it from there")
}

// versions names what is compared, each as it names itself.
func (s *servers) versions(ctx context.Context) string {
	ctx, cancel := context.WithTimeout(ctx, startMost)
	defer cancel()
	return firstLine(exec.CommandContext(ctx, s.agent, "version"), "ntsagent") + "; " +
		firstLine(s.chrony.Command(ctx, "chronyd", "--version"), "chronyd")
}

// firstLine is what cmd prints first, without options in parentheses at its end.
func firstLine(cmd *exec.Cmd, name string) string {
	out, err := cmd.Output()
	line, _, _ := strings.Cut(string(out), "\n")
	if line = strings.TrimSpace(line); err != nil || line == "" {
		return name + " of unknown version"
	}
	line, _, _ = strings.Cut(line, " (+")
	return line
}

// close ends every server, the last one first, and removes the folder.
func (s *servers) close() {
	for i := len(s.all) - 1; i >= 0; i-- {
		s.all[i].stop()
	}
	os.RemoveAll(s.dir)
}

// folder makes one for a server.
func (s *servers) folder(name string) (string, error) {
	s.count++
	dir := filepath.Join(s.dir, fmt.Sprintf("%s%d", name, s.count))
	if err := os.Mkdir(dir, 0o700); err != nil {
		return "", fmt.Errorf("make a folder for %s: %w", name, err)
	}
	return dir, nil
}

// start runs cmd among the servers.
func (s *servers) start(name, dir string, cmd *exec.Cmd) (*child, error) {
	c, err := startChild(name, s.cpus, cmd, filepath.Join(dir, "log"))
	if err != nil {
		return nil, err
	}
	s.all = append(s.all, c)
	return c, nil
}

// The loopback addresses servers may live on.
var (
	loopback  = netip.AddrFrom4([4]byte{127, 0, 0, 1})
	loopback6 = netip.IPv6Loopback()
)

func (s *servers) anyPort() netip.AddrPort { return netip.AddrPortFrom(s.host, 0) }

func (s *servers) target(at netip.AddrPort) load.KETarget {
	return load.KETarget{Addr: at, Name: benchName, Roots: s.id.roots}
}

// startMost is how long a server may take to do what it must before it is measured, on however busy a machine.
const startMost = time.Minute

// wait calls try until it succeeds, the server is gone, or startMost is over.
func (c *child) wait(ctx context.Context, what string, try func(context.Context) error) error {
	ctx, cancel := context.WithTimeout(ctx, startMost)
	defer cancel()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		short, done := context.WithTimeout(ctx, 5*time.Second)
		err := try(short)
		done()
		if err == nil {
			return nil
		}
		select {
		case <-c.ended:
			return c.gone()
		case <-ctx.Done():
			return fmt.Errorf("wait for %s %s: %w%s", c.name, what, err, c.said())
		case <-tick.C:
		}
	}
}

// freePort finds a port that is free over TCP and UDP at this moment.
func freePort(host netip.Addr) (uint16, error) {
	var err error
	for range 20 {
		var ln *net.TCPListener
		if ln, err = net.ListenTCP("tcp", net.TCPAddrFromAddrPort(netip.AddrPortFrom(host, 0))); err != nil {
			break
		}
		at := ln.Addr().(*net.TCPAddr).AddrPort()
		var pc *net.UDPConn
		pc, err = net.ListenUDP("udp", net.UDPAddrFromAddrPort(at))
		ln.Close()
		if err == nil {
			pc.Close()
			return at.Port(), nil
		}
	}
	return 0, fmt.Errorf("find a free port: %w", err)
}
