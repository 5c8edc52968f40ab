package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"flag"
	"fmt"
	"io"
	"net/netip"
	"os"
	"time"

	"ntsagent/cmd/ntsbench/load"
	"ntsagent/ntske/aead"
)

// aim are the flags that say which NTS-KE server is loaded.
type aim struct {
	flag, addr, name, ca, groups string
	timeout                      time.Duration
}

// flags adds them; that of the address has the name given.
func (a *aim) flags(f *flag.FlagSet, addr string) {
	a.flag = addr
	f.StringVar(&a.addr, addr, "", "`ADDRESS:PORT` of the NTS-KE server")
	f.StringVar(&a.name, "name", "", "host `NAME`, or IP address, its certificate is for")
	f.StringVar(&a.ca, "ca", "", "PEM `FILE` of who signed it (default: the system's authorities)")
	f.StringVar(&a.groups, "groups", "default", "key exchange: x25519, or what this client prefers")
	f.DurationVar(&a.timeout, "timeout", load.SessionTimeout, "how long one key exchange may take")
}

func (a *aim) target() (load.KETarget, error) {
	t := load.KETarget{Name: a.name, Timeout: a.timeout}
	if a.timeout <= 0 {
		return t, fmt.Errorf("%w: --timeout %v: it must be longer than 0", errUsage, a.timeout)
	}
	var err error
	if t.Addr, err = address(a.flag, a.addr); err != nil {
		return t, err
	}
	switch a.groups {
	case "default":
	case "x25519":
		t.Groups = []tls.CurveID{tls.X25519}
	default:
		return t, fmt.Errorf("%w: --groups %q: it is x25519 or default", errUsage, a.groups)
	}
	if a.name == "" {
		t.Name = t.Addr.Addr().String()
	}
	if a.ca == "" {
		return t, nil
	}
	pem, err := os.ReadFile(a.ca)
	if err != nil {
		return t, fmt.Errorf("read --ca: %w", err)
	}
	t.Roots = x509.NewCertPool()
	if !t.Roots.AppendCertsFromPEM(pem) {
		return t, fmt.Errorf("read --ca: %s holds no certificate", a.ca)
	}
	return t, nil
}

// address parses the flag of an address: names are not looked up, so that it is
// plain what is loaded.
func address(flag, value string) (netip.AddrPort, error) {
	a, err := netip.ParseAddrPort(value)
	if err != nil {
		return a, fmt.Errorf("%w: --%s %q: want an IP address and port, such as 127.0.0.1:4460", errUsage, flag, value)
	}
	return a, nil
}

// queries are the flags of a load with queries.
type queries struct {
	sockets, window int
	rate            float64
	span, lostAfter time.Duration
}

// flags adds them.
func (q *queries) flags(f *flag.FlagSet) {
	f.IntVar(&q.sockets, "sockets", ntpSockets, "sockets, each with keys of its own if there are any")
	f.IntVar(&q.window, "window", ntpWindow, "queries in flight on each")
	f.Float64Var(&q.rate, "rate", 0, "queries per second in all; 0: as fast as they are answered")
	f.DurationVar(&q.span, "for", 10*time.Second, "how long; 0: until Ctrl-C")
	f.DurationVar(&q.lostAfter, "lost-after", load.LostAfter, "how long a reply is waited for")
}

func (q queries) valid() error {
	switch {
	case q.sockets < 1:
		return fmt.Errorf("%w: --sockets %d: it starts at 1", errUsage, q.sockets)
	case q.window < 1 || q.window > 1<<16:
		return fmt.Errorf("%w: --window %d: it is 1 to %d", errUsage, q.window, 1<<16)
	case q.rate != 0 && !(q.rate >= 1 && q.rate <= 1e7):
		return fmt.Errorf("%w: --rate %g: it is 0, or 1 to 1e7", errUsage, q.rate)
	case q.span < 0:
		return fmt.Errorf("%w: --for %v: it cannot be negative; 0 is until Ctrl-C", errUsage, q.span)
	case q.lostAfter <= 0:
		return fmt.Errorf("%w: --lost-after %v: it must be longer than 0", errUsage, q.lostAfter)
	}
	return nil
}

func runKE(ctx context.Context, args []string, stdout, _ io.Writer) error {
	var a aim
	f := flag.NewFlagSet("ke", flag.ContinueOnError)
	a.flags(f, "addr")
	clients := f.Int("clients", keClients, "clients in flight")
	d := f.Duration("for", 10*time.Second, "how long")
	if err := parse(f, args, stdout); err != nil {
		return err
	}
	t, err := a.target()
	if err != nil {
		return err
	}
	if *clients < 1 {
		return fmt.Errorf("%w: --clients %d: it starts at 1", errUsage, *clients)
	}
	if *d <= 0 {
		return fmt.Errorf("%w: --for %v: it must be longer than 0", errUsage, *d)
	}
	return tell(stdout, "sessions", load.KE(ctx, t, *clients, *d))
}

func runNTS(ctx context.Context, args []string, stdout, _ io.Writer) error {
	var a aim
	var q queries
	var c load.NTSConfig
	f := flag.NewFlagSet("nts", flag.ContinueOnError)
	ntp := f.String("addr", "", "`ADDRESS:PORT` of the NTP server")
	a.flags(f, "ke")
	q.flags(f)
	f.IntVar(&c.Placeholders, "placeholders", 0, "cookie placeholders in each query, up to 7")
	alg := f.Uint("aead", uint(aead.SIVCMAC256), "IANA `NUMBER` of the AEAD algorithm: 15, 16, 17 or 30")
	f.BoolVar(&c.UnknownKey, "unknown-key", false, "ask with cookies under a key the server does not have; NTS NAKs are the good replies")
	if err := parse(f, args, stdout); err != nil {
		return err
	}
	var err error
	if c.KE, err = a.target(); err != nil {
		return err
	}
	if c.NTP, err = address("addr", *ntp); err != nil {
		return err
	}
	if err := q.valid(); err != nil {
		return err
	}
	c.Sockets, c.Window, c.Rate, c.For, c.LostAfter = q.sockets, q.window, q.rate, q.span, q.lostAfter
	if c.AEAD = aead.ID(*alg); *alg > 0xffff || c.AEAD.KeyLen() == 0 {
		return fmt.Errorf("%w: --aead %d: it is 15, 16, 17 or 30", errUsage, *alg)
	}
	if c.Placeholders < 0 || c.Placeholders > 7 {
		return fmt.Errorf("%w: --placeholders %d: it is 0 to 7", errUsage, c.Placeholders)
	}
	r, err := load.NTS(ctx, c)
	if err != nil {
		return err
	}
	return tell(stdout, "queries", r)
}

func runPlain(ctx context.Context, args []string, stdout, _ io.Writer) error {
	var q queries
	f := flag.NewFlagSet("plain", flag.ContinueOnError)
	ntp := f.String("addr", "", "`ADDRESS:PORT` of the NTP server")
	q.flags(f)
	err := parse(f, args, stdout)
	if err != nil {
		return err
	}
	at, err := address("addr", *ntp)
	if err != nil {
		return err
	}
	if err := q.valid(); err != nil {
		return err
	}
	r, err := load.Plain(ctx, load.PlainConfig{NTP: at, Sockets: q.sockets, Window: q.window, Rate: q.rate, For: q.span, LostAfter: q.lostAfter})
	if err != nil {
		return err
	}
	return tell(stdout, "queries", r)
}

func runIdle(ctx context.Context, args []string, stdout, _ io.Writer) error {
	var a aim
	f := flag.NewFlagSet("idle", flag.ContinueOnError)
	a.flags(f, "addr")
	kindName := f.String("kind", load.Finished.String(), "how far they get: tcp, half-hello or finished")
	n := f.Int("n", 5000, "how many")
	most := f.Duration("for", 30*time.Second, "how long to wait until the server has closed them")
	if err := parse(f, args, stdout); err != nil {
		return err
	}
	t, err := a.target()
	if err != nil {
		return err
	}
	kind, err := load.ParseKind(*kindName)
	switch {
	case err != nil:
		return fmt.Errorf("%w: --kind %q: it is tcp, half-hello or finished", errUsage, *kindName)
	case *n < 1:
		return fmt.Errorf("%w: --n %d: it starts at 1", errUsage, *n)
	case *most <= 0:
		return fmt.Errorf("%w: --for %v: it must be longer than 0", errUsage, *most)
	}
	files, err := raiseFiles()
	if err == nil {
		err = enoughFiles([]group{{idle: true}}, "--n", *n, files)
	}
	if err != nil {
		return err
	}
	idle, err := load.Hold(ctx, t, kind, *n)
	if err != nil {
		return err
	}
	defer idle.Close()
	if idle.Opened() == 0 {
		return fmt.Errorf("no connection was opened; the first: %w", idle.FirstErr)
	}
	fmt.Fprintf(stdout, "%d connections opened, %d refused%s\n", idle.Opened(), idle.Refused, reason(idle.FirstErr))
	p := load.Probe(ctx, t, probes, t.Timeout)
	if ctx.Err() != nil {
		return ctx.Err()
	}
	fmt.Fprintf(stdout, "new clients served: %d/%d, the slowest in %v; %d connections held\n",
		p.Served, p.Of, p.Slowest.Round(time.Microsecond), idle.Open())
	longest, err := idle.Gone(ctx, *most)
	if err == nil {
		fmt.Fprintf(stdout, "all idle connections closed; the longest was open for %v\n", longest.Round(time.Millisecond))
	}
	if p.Served < p.Of && ctx.Err() == nil {
		return fmt.Errorf("%d of %d new clients were not served%s", p.Of-p.Served, p.Of, reason(p.FirstErr))
	}
	return err
}

// tell prints what a load came to. A failed operation is what the reader asked
// to see, and an error too.
func tell(w io.Writer, operations string, r load.Result) error {
	fmt.Fprintf(w, "%d %s verified in %v (%.0f/s), %d failed\n", r.Done, operations, r.Took.Round(time.Millisecond),
		float64(r.Done)/max(r.Took.Seconds(), 1e-9), r.Failed)
	for _, d := range []struct {
		name string
		dist *load.Dist
	}{{"latency", &r.Latency}, {"clock offset", &r.Offset}, {"delay", &r.Delay}} {
		if d.dist.Len() > 0 {
			fmt.Fprintf(w, "%s p1 %v, p50 %v, p99 %v, max %v\n", d.name,
				d.dist.Quantile(0.01), d.dist.Quantile(0.5), d.dist.Quantile(0.99), d.dist.Quantile(1))
		}
	}
	switch {
	case r.Failed > 0:
		return fmt.Errorf("%w: %d of %d %s; the first: %w", errOutcome, r.Failed, r.Failed+r.Done, operations, r.FirstErr)
	case r.Done == 0:
		return fmt.Errorf("%w: no %s were verified", errOutcome, operations)
	}
	return nil
}

func reason(err error) string {
	if err == nil {
		return ""
	}
	return fmt.Sprintf(" (the first: %v)", err)
}
