package client

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"math"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"

	"ntsagent/ntske/aead"
	"ntsagent/ntske/packet"
	"ntsagent/ntske/record"
)

// CheckConfig says what to check.
type CheckConfig struct {
	Name     string         // host name, or an address the certificate must then be for
	Port     uint16         // of the key exchange; 0: the registered one, 4460
	Family   int            // 4 or 6 to try one only; 0: each the name has
	Count    int            // authenticated replies wanted per address; 0: 2, the least that tells the whole story
	AEADs    []aead.ID      // each tried alone at each address; nil: AES-SIV-CMAC-256
	Roots    *x509.CertPool // nil: the system's
	Resolver string         // ip:port; "": the system's
	Timeout  time.Duration  // for each address; 0: 5 s

	queryTime time.Duration // 0: queryTime
}

// Algorithms reads the numbers of AEAD algorithms to check: such as this tool
// has, each once.
func Algorithms(numbers []uint) ([]aead.ID, error) {
	var all []aead.ID
	for _, n := range numbers {
		alg := aead.ID(n)
		switch {
		case n > math.MaxUint16 || alg.KeyLen() == 0:
			return nil, fmt.Errorf("%d: use some of 15, 16, 17, 30", n)
		case slices.Contains(all, alg):
			return nil, fmt.Errorf("%d: given twice", n)
		}
		all = append(all, alg)
	}
	return all, nil
}

const (
	minCount     = 2
	maxAddresses = 16          // of one name
	queryTime    = time.Second // until a query counts as lost
	spareQueries = 2           // per address, for those that get lost
)

// Check walks the way of a stranger, who knows nothing but the name: resolve
// it, exchange keys at every address, query the NTP server once with a cookie
// from the key exchange and then with refreshed ones. It always returns a whole
// Report; what went wrong stands in it.
func Check(ctx context.Context, c CheckConfig) Report {
	c.setDefaults()
	r := Report{Name: c.Name, Port: c.Port, Results: []AddressReport{}}
	resolving, cancel := context.WithTimeout(ctx, c.Timeout)
	defer cancel()
	all, err := Resolve(resolving, c.Resolver, c.Name)
	r.Addresses = pick(all, c.Family)
	switch {
	case err != nil && (c.Family == 0 || len(r.Addresses) == 0):
		r.Problem = problem(err)
	case len(r.Addresses) == 0:
		r.Problem = problem(did("resolve", fmt.Sprintf("have an IPv%d address", c.Family), nil))
	}
	algorithms := c.AEADs
	if len(algorithms) == 0 {
		algorithms = []aead.ID{0}
	}
	results := make([]AddressReport, len(r.Addresses)*len(algorithms))
	var wg sync.WaitGroup
	for i, addr := range r.Addresses {
		wg.Go(func() { // one after the other: a server limits what one address asks at a time
			for j, alg := range algorithms {
				results[i*len(algorithms)+j] = c.address(ctx, addr, alg)
			}
		})
	}
	wg.Wait()
	r.Results = append(r.Results, results...)
	r.OK = r.Fault() == 0
	return r
}

func (c *CheckConfig) setDefaults() {
	if c.Port == 0 {
		c.Port = record.KEPort
	}
	if c.Timeout == 0 {
		c.Timeout = defaultTimeout
	}
	if c.queryTime == 0 {
		c.queryTime = queryTime
	}
	c.Count = max(c.Count, minCount)
}

// pick returns the addresses of one family, or of both.
func pick(all []netip.Addr, family int) []netip.Addr {
	picked := slices.DeleteFunc(slices.Clone(all), func(a netip.Addr) bool {
		return family != 0 && family != familyOf(a)
	})
	return picked[:min(len(picked), maxAddresses)]
}

func familyOf(a netip.Addr) int {
	if a.Is4() {
		return 4
	}
	return 6
}

// address checks one address with one algorithm; 0 = the one every server knows.
func (c *CheckConfig) address(ctx context.Context, addr netip.Addr, alg aead.ID) AddressReport {
	ctx, cancel := context.WithTimeout(ctx, c.Timeout)
	defer cancel()
	r := AddressReport{Address: addr, Family: fmt.Sprintf("ipv%d", familyOf(addr)), AEAD: uint16(alg)}
	conf := Config{Addr: netip.AddrPortFrom(addr, c.Port), Name: c.Name, Roots: c.Roots}
	if alg != 0 {
		conf.AEADs = []aead.ID{alg}
	}
	res, err := KeyExchange(ctx, conf)
	if len(res.TLS.PeerCertificates) > 0 {
		r.TLS = tlsReport(c.Name, res.TLS, time.Now())
	}
	if err != nil {
		r.Problem = problem(err)
		return r
	}
	r.KE = keReport(res)
	target, err := c.target(ctx, res, addr)
	if err != nil {
		r.Problem = problem(err)
		return r
	}
	r.NTP = &NTPReport{Address: target}
	if err := c.queries(ctx, r.NTP, res); err != nil {
		r.Problem = problem(err)
	}
	return r
}

// target is where the NTP server is: where the key exchange says, else at the
// address of the key exchange (RFC 8915 §4.1.7 and §4.1.8).
func (c *CheckConfig) target(ctx context.Context, res Result, addr netip.Addr) (netip.AddrPort, error) {
	if res.Server == "" {
		return netip.AddrPortFrom(addr, res.Port), nil
	}
	all, err := Resolve(ctx, c.Resolver, res.Server)
	if len(all) == 0 {
		return netip.AddrPort{}, err
	}
	if same := pick(all, familyOf(addr)); len(same) > 0 {
		all = same
	}
	return netip.AddrPortFrom(all[0], res.Port), nil
}

// queries asks until it has Count replies, the first for a cookie of the key
// exchange and the others for refreshed ones, and judges the last.
func (c *CheckConfig) queries(ctx context.Context, r *NTPReport, res Result) error {
	var fresh [][]byte
	initial := res.Cookies
	for tries := 0; r.Replies < c.Count; tries++ {
		refreshed := len(fresh) > 0
		from := &fresh
		if !refreshed {
			from = &initial
		}
		if tries == c.Count+spareQueries || len(*from) == 0 {
			return did("ntp", fmt.Sprintf("answer %d of %d queries", r.Lost, tries), ErrSilent)
		}
		cookie := (*from)[0]
		*from = (*from)[1:]
		reply, err := c.query(ctx, r.Address, res.Keys, cookie)
		switch {
		case errors.Is(err, ErrSilent) && ctx.Err() == nil:
			r.Lost++
			continue
		case err != nil:
			return err
		}
		fresh = append(fresh, reply.Cookies...)
		r.add(reply, refreshed)
		if err := judge(reply, res.TLS.PeerCertificates[0], time.Now()); err != nil {
			return err
		}
	}
	return nil
}

// query asks for two cookies more than it spends, so that a lost packet does
// not send us back to the key exchange.
func (c *CheckConfig) query(ctx context.Context, addr netip.AddrPort, k Keys, cookie []byte) (Reply, error) {
	ctx, cancel := context.WithTimeout(ctx, c.queryTime)
	defer cancel()
	return Query(ctx, addr, k, cookie, 2)
}

// judge says what is wrong with an authenticated reply.
func judge(reply Reply, leaf *x509.Certificate, now time.Time) error {
	h := reply.Header
	theirs := now.Add(reply.Offset)
	switch {
	case isKiss(h):
		return did("ntp", "give the time, but the kiss code "+h.Kiss(), nil)
	case h.Leap == 3 || h.Stratum == 0 || h.Stratum >= 16:
		return did("ntp", fmt.Sprintf("have a synchronised clock yet (leap %d, stratum %d)", h.Leap, h.Stratum), nil)
	case len(reply.Cookies) == 0:
		return did("ntp", "send a new cookie", nil)
	case theirs.Before(leaf.NotBefore) || theirs.After(leaf.NotAfter): // RFC 8915 §8.5
		return did("ntp", "give a time within the life of its own certificate, but "+theirs.UTC().Format(time.RFC3339), nil)
	}
	return nil
}

// isKiss tells a kiss code from what a server sends that is not synchronised:
// that is stratum 0 too, with zeros or its last source in place of a code.
func isKiss(h packet.Header) bool {
	code := strings.TrimRight(h.Kiss(), ".")
	return len(code) >= 3 && !strings.Contains(code, ".")
}

// issuer names who signed a certificate as people know them.
func issuer(leaf *x509.Certificate) string {
	name := leaf.Issuer.CommonName
	if len(leaf.Issuer.Organization) > 0 {
		name = strings.Join(leaf.Issuer.Organization, " ")
	}
	return printable(name)
}
