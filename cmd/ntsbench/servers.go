package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"ntsagent/agent/status"
	"ntsagent/cmd/ntsbench/load"
	"ntsagent/ntske/client"
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
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
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

// startFloor runs this program's floor of that kind on the open sockets.
func (s *servers) startFloor(kind string, sockets []*os.File, args ...string) (*child, error) {
	dir, err := s.folder("floor-" + kind)
	if err != nil {
		return nil, err
	}
	cmd := exec.Command(s.self, append([]string{"floor", kind}, args...)...)
	cmd.ExtraFiles = sockets
	return s.start("the "+kind+" floor", dir, cmd)
}

// startTLSFloor runs a TLS floor that answers with so many octets.
func (s *servers) startTLSFloor(octets int) (server, error) {
	socket, at, err := s.listenTCP()
	if err != nil {
		return server{}, err
	}
	defer socket.Close()
	c, err := s.startFloor("tls", []*os.File{socket}, "--cert", s.id.cert, "--key", s.id.key, "--octets", strconv.Itoa(octets))
	return server{child: c, ke: s.target(at)}, err
}

// startUDPFloor runs a UDP echo, of the first reply octets only, or of all if reply is 0.
func (s *servers) startUDPFloor(reply int) (server, error) {
	socket, at, err := s.listenUDP()
	if err != nil {
		return server{}, err
	}
	defer socket.Close()
	c, err := s.startFloor("udp", []*os.File{socket}, "--reply", strconv.Itoa(reply))
	return server{child: c, ntp: at}, err
}

// listenTCP opens a listening socket for a child.
func (s *servers) listenTCP() (*os.File, netip.AddrPort, error) {
	ln, err := net.ListenTCP("tcp", net.TCPAddrFromAddrPort(s.anyPort()))
	if err != nil {
		return nil, netip.AddrPort{}, fmt.Errorf("listen for a floor: %w", err)
	}
	defer ln.Close()
	socket, err := ln.File()
	if err != nil {
		return nil, netip.AddrPort{}, fmt.Errorf("hand a floor its socket: %w", err)
	}
	return socket, ln.Addr().(*net.TCPAddr).AddrPort(), nil
}

// listenUDP opens a socket for a child.
func (s *servers) listenUDP() (*os.File, netip.AddrPort, error) {
	pc, err := net.ListenUDP("udp", net.UDPAddrFromAddrPort(s.anyPort()))
	if err != nil {
		return nil, netip.AddrPort{}, fmt.Errorf("listen for a floor: %w", err)
	}
	defer pc.Close()
	socket, err := pc.File()
	if err != nil {
		return nil, netip.AddrPort{}, fmt.Errorf("hand a floor its socket: %w", err)
	}
	return socket, pc.LocalAddr().(*net.UDPAddr).AddrPort(), nil
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
	return d, d.wait(ctx, "to tell the time", func(ctx context.Context) error {
		_, err := client.Plain(ctx, d.ntp)
		return err
	})
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

// wait calls try until it succeeds, the server is gone, or 20 s are over.
func (c *child) wait(ctx context.Context, what string, try func(context.Context) error) error {
	ctx, cancel := context.WithTimeout(ctx, 20*time.Second)
	defer cancel()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		short, done := context.WithTimeout(ctx, 2*time.Second)
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
