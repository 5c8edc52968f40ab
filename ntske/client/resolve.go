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
	r := net.DefaultResolver
	if resolver != "" {
		if _, err := netip.ParseAddrPort(resolver); err != nil {
			return nil, couldNot("resolve", fmt.Sprintf("use the resolver %q", resolver), errors.New("it must be ADDRESS:PORT"))
		}
		r = &net.Resolver{PreferGo: true, Dial: func(ctx context.Context, network, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, network, resolver)
		}}
		name = strings.TrimSuffix(name, ".") + "." // no search list
	}
	var found [2][]netip.Addr
	var failed [2]error
	var wg sync.WaitGroup
	for i, network := range [2]string{"ip4", "ip6"} {
		wg.Go(func() { found[i], failed[i] = r.LookupNetIP(ctx, network, name) })
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
		return nil, did("resolve", "have an address in DNS", cause(failed[0]))
	}
	return all, nil
}

// absent tells "there is none" from "could not find out".
func absent(err error) bool {
	var dns *net.DNSError
	var addr *net.AddrError
	return errors.As(err, &dns) && dns.IsNotFound || errors.As(err, &addr)
}
