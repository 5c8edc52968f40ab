package agent

import (
	"context"
	"encoding/pem"
	"fmt"
	"net/netip"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"ntsagent/agent/daemon/chronytest"
	"ntsagent/agent/daemon/clienttest"
	"ntsagent/agent/daemon/daemontest"
	"ntsagent/agent/daemon/ntpdrstest"
	"ntsagent/agent/daemon/ntpsectest"
	"ntsagent/agent/daemon/openntpdtest"
	"ntsagent/agent/status"
	"ntsagent/ntske/aead"
	"ntsagent/ntske/client"
	debian "ntsagent/packaging/parts"
)

// column is a daemon of the matrix and the agent beside it.
type column struct {
	title         string
	host          string // name
	addr          netip.Addr
	port          uint16 // of the key exchange
	ntp           string // of ke.ntp, YAML
	daemon        string // YAML
	opens         []aead.ID
	authenticated func() int // queries the daemon has answered with NTS
	*member
}

// row is a client of the matrix and what it says of each column, by host.
type row struct {
	title string
	says  string    // of what it can
	likes []aead.ID // best first
	said  func(context.Context) (map[string]clienttest.Said, error)
	log   func() string
	cells map[string]clienttest.Said
}

// columns are the daemons; the agents beside them are yet to be started. Nothing
// answers at the port everybody knows, and one of them at another address than
// its key exchange: clients must follow.
func columns(t *testing.T, hosts map[string]netip.Addr) []*column {
	chrony := func(s *chronytest.Server, r debian.Release, host string, opens ...aead.ID) *column {
		return &column{title: r.String(), host: host, opens: opens, authenticated: s.Authenticated, daemon: fmt.Sprintf(
			"daemon: {kind: chrony, address: %q, chrony: {keys_file: %s, command_socket: %s, config_file: %s}}\n", s.Addr, s.KeysFile, s.Socket, s.Conf)}
	}
	old := chronytest.Start(t, chronytest.Options{})
	all := []*column{
		chrony(old, debian.Debian12, "chrony-4-3.test", 15),
		chrony(chronytest.Start(t, chronytest.Options{Release: debian.Debian13}), debian.Debian13, "chrony-4-6.test", 15, 30),
	}

	ntpsec := ntpsectest.Start(t, ntpsectest.Options{ExtraConf: []string{"restrict 127.0.0.1", "tos orphan 8 orphanwait 1"}})
	all = append(all, &column{title: "NTPsec " + debian.Debian12.NTPsec, host: "ntpsec.test", opens: []aead.ID{15, 16, 17}, authenticated: ntpsec.Authenticated, daemon: fmt.Sprintf(
		"daemon: {kind: ntpsec, address: %q, ntpsec: {keys_file: %s}}\n", relay(t, hosts["ntpsec.test"], ntpsec.Network, ntpsectest.Addr), ntpsec.KeysFile)})

	rs := ntpdrstest.Start(t, ntpdrstest.Options{
		Host: netip.MustParseAddr("127.0.2.4"), Source: netip.AddrPortFrom(hosts["chrony-4-3.test"], old.Addr.Port()),
	})
	all = append(all, &column{title: "ntpd-rs " + debian.Debian13.NTPDRS, host: "ntpd-rs.test", opens: []aead.ID{15, 17}, authenticated: rs.Authenticated,
		ntp: fmt.Sprintf(", ntp: {host: %s}", rs.Addr.Addr()), daemon: fmt.Sprintf(
			"daemon: {kind: ntpd-rs, address: %q, ntpd_rs: {keys_file: %s}}\n", rs.Addr, rs.KeysFile)})

	open := openntpdtest.StartSynchronised(t)
	gateway := &column{title: "OpenNTPD " + debian.Debian12.OpenNTPD + ", gateway", host: "openntpd.test", opens: []aead.ID{15, 30}, daemon: fmt.Sprintf(
		"daemon: {kind: gateway, address: %q, gateway: {listen: [\"%s:0\"]}}\n", relay(t, localhost, open.Network, openntpdtest.Addr), hosts["openntpd.test"])}
	gateway.authenticated = func() int {
		d, err := gateway.status()
		if err != nil {
			t.Fatal(err)
		}
		return int(d.Daemon.Gateway.Served)
	}
	return append(all, gateway)
}

var localhost = netip.AddrFrom4([4]byte{127, 0, 0, 1})

func TestEveryClientGetsAuthenticTimeFromEveryDaemon(t *testing.T) {
	t.Parallel()
	hosts := map[string]netip.Addr{}
	for i, host := range []string{"chrony-4-3.test", "chrony-4-6.test", "ntpsec.test", "ntpd-rs.test", "openntpd.test"} {
		hosts[host] = netip.AddrFrom4([4]byte{127, 0, 1, byte(i + 1)})
	}
	if !daemontest.Isolated(t, hosts) {
		return
	}
	start := time.Now()
	ca := newAuthority(t)
	all := columns(t, hosts)
	var servers []clienttest.Server
	for _, c := range all {
		c.addr = hosts[c.host]
		c.begin(t, ca)
		servers = append(servers, clienttest.Server{Name: c.host, Port: c.port})
	}
	for _, c := range all {
		c.wait(c.title+" serves all it can", func(d status.Document) bool {
			return provenAndOpen(c.member)(d) && d.State == status.Healthy && len(d.Daemon.Opens) == len(c.opens)
		})
	}
	rows := clientRows(t, ca, servers, all)
	ctx, cancel := context.WithTimeout(t.Context(), 2*patience)
	defer cancel()
	var each sync.WaitGroup
	for _, r := range rows {
		each.Go(func() { r.fill(ctx, t, all) })
	}
	each.Wait()
	follow := "| *opens; where clients are led* |"
	head := fmt.Sprintf("| client, below; daemon, right (%.0f s) |", time.Since(start).Seconds())
	line := "|---|"
	last := "| *queries the daemon has answered with NTS* |"
	for _, c := range all {
		head += " " + c.title + " |"
		line += "---|"
		host := ""
		if c.ntp != "" {
			host = " and another address"
		}
		follow += fmt.Sprintf(" %d; key exchange at :%d, NTP at a port%s told there |", c.opens, c.port, host)
		n := c.authenticated()
		last += fmt.Sprintf(" %d |", n)
		if n < len(rows) {
			t.Errorf("%s has counted %d queries with NTS from %d clients", c.title, n, len(rows))
		}
	}
	tell(t, "%s", head)
	tell(t, "%s", line)
	tell(t, "%s", follow)
	for _, r := range rows {
		tell(t, "%s", r.text(t, all))
	}
	tell(t, "%s", last)
}

// begin starts the agent.
func (c *column) begin(t *testing.T, ca *authority) {
	t.Helper()
	dir := t.TempDir()
	c.member = &member{
		t: t, ca: ca, dir: dir, state: filepath.Join(dir, "state"),
		cert: filepath.Join(dir, "fullchain.pem"), key: filepath.Join(dir, "privkey.pem"),
		conf: filepath.Join(dir, "ntsagent.yaml"), socket: filepath.Join(dir, "s"), ended: make(chan error, 1),
	}
	cert, key, _ := ca.issueFor(c.host, time.Hour)
	c.write(c.key, key)
	c.write(c.cert, cert)
	c.port = 4460
	if strings.Contains(c.daemon, "ntpsec") { // which holds that one itself
		c.port = 4461
	}
	c.write(c.conf, fmt.Appendf(nil, `names: [%s]
certificate: {source: files, cert: %s, key: %s}
ke: {timeout: 30s, listen: ["%s:%d"]%s}
observe: {socket: %s, self_check: 1s}
state_dir: %s
%s`, c.host, c.cert, c.member.key, c.addr, c.port, c.ntp, c.socket, c.state, c.daemon))
	c.start()
}

// clientRows starts the clients.
func clientRows(t *testing.T, ca *authority, servers []clienttest.Server, all []*column) []*row {
	t.Helper()
	file := filepath.Join(t.TempDir(), "ca.pem")
	all[0].write(file, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: ca.cert.Raw}))
	var rows []*row
	add := func(says string, c *clienttest.Client, likes ...aead.ID) {
		rows = append(rows, &row{title: c.Name, says: says, likes: likes, said: c.Said, log: c.Log})
	}
	add("knows 15 alone", clienttest.Chrony(t, debian.Debian12, file, servers), 15)
	add("offers 30 and 15", clienttest.Chrony(t, debian.Debian13, file, servers), 30, 15)
	add("offers one, by default 15", clienttest.NTPsec(t, debian.Debian12, file, servers), 15)
	add("offers 17 and 15", clienttest.NTPDRS(t, file, servers), 17, 15)
	own := &row{title: "our own", says: "offers each alone", likes: ownLikes, log: func() string { return "" }}
	own.said = func(ctx context.Context) (map[string]clienttest.Said, error) {
		said := map[string]clienttest.Said{}
		for _, c := range all {
			if s := own.cells[c.host]; own.good(c, s) {
				said[c.host] = s
				continue
			}
			var err error
			if said[c.host], err = c.ask(ctx); err != nil {
				return said, fmt.Errorf("%s: %w", c.title, err)
			}
		}
		return said, nil
	}
	return append(rows, own)
}

var ownLikes = []aead.ID{30, 17, 16, 15}

// ask is our own client: it offers every algorithm alone, and asks twice with
// each that is agreed to.
func (c *column) ask(ctx context.Context) (said clienttest.Said, err error) {
	ctx, cancel := context.WithTimeout(ctx, patience/4) // a datagram may be lost: then all is done again
	defer cancel()
	for _, alg := range ownLikes {
		r, err := client.KeyExchange(ctx, client.Config{
			Addr: netip.AddrPortFrom(c.addr, c.port), Name: c.host, Roots: c.ca.roots, AEADs: []aead.ID{alg},
		})
		if err != nil {
			if alg == 15 {
				return said, err
			}
			continue
		}
		ntp := netip.AddrPortFrom(c.addr, r.Port)
		if r.Server != "" {
			ntp = netip.AddrPortFrom(netip.MustParseAddr(r.Server), r.Port)
		}
		for range 2 {
			reply, err := client.Query(ctx, ntp, r.Keys, r.Cookies[0], 0)
			if err != nil {
				return said, fmt.Errorf("%v: %w", alg, err)
			}
			r.Cookies = append(r.Cookies[1:], reply.Cookies...)
		}
		if said.AEAD == 0 {
			said = clienttest.Said{AEAD: alg, Cookies: len(r.Cookies), Reached: true, Words: "2 answers"}
			continue
		}
		said.Words += fmt.Sprintf("; the same with %d", uint16(alg))
	}
	return said, nil
}

// fill asks the client again and again until all its cells are good, or ctx is
// done.
func (r *row) fill(ctx context.Context, t *testing.T, all []*column) {
	again := time.NewTicker(200 * time.Millisecond)
	defer again.Stop()
	for {
		said, err := r.said(ctx)
		if ctx.Err() == nil && said != nil {
			r.cells = said
		}
		well := err == nil
		for _, c := range all {
			well = well && r.good(c, said[c.host])
		}
		if well {
			return
		}
		select {
		case <-again.C:
		case <-ctx.Done():
			t.Errorf("%s, last error %v:\n%s", r.title, err, r.log())
			return
		}
	}
}

// good tells that an authentic answer came, with the algorithm that the client
// likes best of those that the daemon opens, and for each cookie that was spent
// another one.
func (r *row) good(c *column, s clienttest.Said) bool {
	best := slices.IndexFunc(r.likes, func(alg aead.ID) bool { return slices.Contains(c.opens, alg) })
	return s.AEAD == r.likes[best] && s.Cookies == 8 && s.NAKs == 0 && s.Reached
}

func (r *row) text(t *testing.T, all []*column) string {
	text := fmt.Sprintf("| %s, %s |", r.title, r.says)
	for _, c := range all {
		s := r.cells[c.host]
		text += fmt.Sprintf(" AEAD %d, %d cookies, NAK %d, %s", uint16(s.AEAD), s.Cookies, s.NAKs, s.Words)
		if !r.good(c, s) {
			text += ": NOT AUTHENTIC"
			t.Errorf("%s has no authentic time from %s: %+v", r.title, c.title, s)
		}
		text += " |"
	}
	return text
}
