package clienttest

import (
	"context"
	"fmt"
	"net/netip"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"ntsagent/agent/daemon/daemontest"
	"ntsagent/ntske/aead"
	"ntsagent/ntske/client"
	"ntsagent/packaging/parts"
	"ntsagent/packaging/parts/partstest"
)

// ntpd is where NTPsec's daemon answers what it is asked.
var ntpd = netip.MustParseAddrPort("127.0.0.1:123")

// NTPsec runs the release's ntpd as a client of servers, whose certificates
// those in the file ca have signed. It insists on UDP port 123 of all addresses:
// see daemontest.Isolated. One answer has to be enough: the next queries may take
// it 15 s.
func NTPsec(t testing.TB, r parts.Release, ca string, servers []Server) *Client {
	t.Helper()
	root, dir := partstest.NTPsec(t, r), folder(t)
	lines := []string{"nts ca " + ca, "restrict 127.0.0.1"} // else nobody may ask it
	for _, s := range servers {
		lines = append(lines, fmt.Sprintf("server %s nts iburst minpoll 1 maxpoll 1", s))
	}
	conf := write(t, dir, "ntp.conf", lines)
	p := daemontest.NewProcess(t)
	c := &Client{Name: "NTPsec " + r.NTPsec, Log: p.Log}
	err := p.Run(func(ctx context.Context) *exec.Cmd {
		return daemontest.WithoutClock(root.Command(ctx, "ntpd", "-n", "-c", conf, "-f", filepath.Join(dir, "drift")))
	}, func() bool {
		_, err := client.Plain(t.Context(), ntpd)
		return err == nil
	})
	if err != nil {
		t.Fatalf("%s as a client: %v\n%s", c.Name, err, c.Log())
	}
	c.Said = func(context.Context) (map[string]Said, error) { return ntpsecSaid(c.Log()) }
	return c
}

// ntpsecAgreed finds in ntpd's log what it has agreed to with whom:
//
//	NTSc: Got 8 cookies, length 100, aead=15.
//	NTSc: NTS-KE req to a.test:4460 took 0.045 sec, OK
var ntpsecAgreed = regexp.MustCompile(`aead=(\d+)\.\n.*NTS-KE req to ([^:]+):\d+ took`)

func ntpsecSaid(log string) (map[string]Said, error) {
	agreed := map[string]aead.ID{}
	for _, m := range ntpsecAgreed.FindAllStringSubmatch(log, -1) {
		alg, err := strconv.ParseUint(m[1], 10, 16)
		if err != nil {
			return nil, err
		}
		agreed[m[2]] = aead.ID(alg)
	}
	ids, err := daemontest.Associations(ntpd)
	if err != nil {
		return nil, err
	}
	system, err := daemontest.Variables(ntpd, 0, "nts_client_recv_bad") // it counts no NAKs, but answers that are not authentic
	if err != nil {
		return nil, err
	}
	bad, err := strconv.Atoi(system["nts_client_recv_bad"])
	if err != nil {
		return nil, fmt.Errorf("system variables %q: %w", system, err)
	}
	all := map[string]Said{}
	for _, id := range ids {
		v, err := daemontest.Variables(ntpd, id)
		if err != nil {
			return nil, err
		}
		name, _, _ := strings.Cut(v["srchost"], ":")
		cookies, _ := strconv.Atoi(v["ntscookies"]) // not told before it has some
		reach, err := strconv.ParseUint(v["reach"], 0, 8)
		if err != nil {
			return nil, fmt.Errorf("variables of association %d, %q: %w", id, v, err)
		}
		all[name] = Said{AEAD: agreed[name], Cookies: cookies, NAKs: bad, Reached: reach != 0, Words: fmt.Sprintf("reach %o", reach)}
	}
	return all, nil
}
