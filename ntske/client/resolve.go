package client

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/miekg/dns"
)

// Resolve returns the addresses of name, IPv4 before IPv6, each once. An
// address as name is returned as it is. resolver is the ip:port of the DNS
// server to ask; "" asks as the system does. IPv4 and IPv6 are asked for
// apart, so that one which fails does not hide the other: addresses and an
// error may come together. Errors are of type *Error; a name without any
// address is the server's fault, a resolver that does not answer is not.
func Resolve(ctx context.Context, resolver, name string) ([]netip.Addr, error) {
	if a, err := netip.ParseAddr(name); err == nil {
		return []netip.Addr{a.Unmap()}, nil
	}
	ctx, cancel := withDefault(ctx)
	defer cancel()
	lookup := systemLookup
	if resolver != "" {
		if _, err := netip.ParseAddrPort(resolver); err != nil {
			return nil, couldNot("resolve", fmt.Sprintf("use the resolver %q", resolver), errors.New("it must be ADDRESS:PORT"))
		}
		lookup = func(ctx context.Context, family int, name string) ([]netip.Addr, error) {
			return ask(ctx, resolver, family, name)
		}
	}
	var found [2][]netip.Addr
	var failed [2]error
	var wg sync.WaitGroup
	for i, family := range [2]int{4, 6} {
		wg.Go(func() { found[i], failed[i] = lookup(ctx, family, name) })
	}
	wg.Wait()

	var all []netip.Addr
	for _, a := range slices.Concat(found[:]...) {
		if a = a.Unmap(); !slices.Contains(all, a) {
			all = append(all, a)
		}
	}
	for i, family := range [2]string{"IPv4", "IPv6"} {
		if failed[i] != nil && !absent(failed[i]) {
			return all, couldNot("resolve", "look up its "+family+" addresses", failed[i])
		}
	}
	if len(all) == 0 {
		return nil, did("resolve", "have an address in DNS", nil)
	}
	return all, nil
}

// errNone is a name that does not exist, or has no address of that family.
var errNone = errors.New("no address")

// absent tells "there is none" from "could not find out".
func absent(err error) bool {
	var dns *net.DNSError
	var addr *net.AddrError
	return errors.Is(err, errNone) || errors.As(err, &dns) && dns.IsNotFound || errors.As(err, &addr)
}

func systemLookup(ctx context.Context, family int, name string) ([]netip.Addr, error) {
	return net.DefaultResolver.LookupNetIP(ctx, fmt.Sprintf("ip%d", family), name)
}

// ask puts one question to one DNS server. net.Resolver would look into
// /etc/hosts first, name the system's server in its errors and take an empty
// answer of a plain server for a lame one.
func ask(ctx context.Context, resolver string, family int, name string) ([]netip.Addr, error) {
	const each, tries, size = 2 * time.Second, 3, 1232
	kind := dns.TypeA
	if family == 6 {
		kind = dns.TypeAAAA
	}
	question := new(dns.Msg).SetQuestion(dns.Fqdn(name), kind).SetEdns0(size, false)
	var answer *dns.Msg
	var err error
	for try := 0; try < tries && ctx.Err() == nil; try++ {
		answer, _, err = (&dns.Client{Timeout: each}).ExchangeContext(ctx, question, resolver)
		if err == nil && answer.Truncated {
			answer, _, err = (&dns.Client{Net: "tcp", Timeout: each}).ExchangeContext(ctx, question, resolver)
		}
		if err == nil || !isTimeout(err) {
			break
		}
	}
	switch {
	case err != nil || answer == nil:
		return nil, fmt.Errorf("ask %s: %w", resolver, cause(errors.Join(err, ctx.Err())))
	case answer.Rcode != dns.RcodeSuccess && answer.Rcode != dns.RcodeNameError:
		return nil, fmt.Errorf("%s answered %s", resolver, dns.RcodeToString[answer.Rcode])
	}
	return addresses(answer, strings.ToLower(dns.Fqdn(name)))
}

// addresses takes the address records of name, or of what it is an alias for.
func addresses(answer *dns.Msg, name string) (all []netip.Addr, err error) {
	for range answer.Answer { // no chain of aliases is longer than the answer
		for _, rr := range answer.Answer {
			if c, ok := rr.(*dns.CNAME); ok && strings.ToLower(c.Hdr.Name) == name {
				name = strings.ToLower(c.Target)
				break
			}
		}
	}
	for _, rr := range answer.Answer {
		var ip net.IP
		switch rr := rr.(type) {
		case *dns.A:
			ip = rr.A
		case *dns.AAAA:
			ip = rr.AAAA
		}
		if a, ok := netip.AddrFromSlice(ip); ok && strings.ToLower(rr.Header().Name) == name {
			all = append(all, a.Unmap())
		}
	}
	if len(all) == 0 {
		return nil, errNone
	}
	return all, nil
}

func isTimeout(err error) bool {
	var network net.Error
	return errors.As(err, &network) && network.Timeout()
}
