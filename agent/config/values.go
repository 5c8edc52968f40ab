package config

import (
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"reflect"
	"strconv"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"golang.org/x/net/idna"

	"ntsagent/hostcheck"
)

// Rate is "so many per so long", written 1/s, 30/m or 6/h; the zero value,
// written 0, means no limit.
type Rate struct {
	Count int
	Per   time.Duration
}

// scalars holds, for every type one YAML scalar can become, how it is read and
// how it is written back. parse gets the text of the scalar.
var scalars = map[reflect.Type]struct {
	parse  func(string) (any, error)
	format func(any) string
}{
	reflect.TypeFor[string]():         {parseText, func(v any) string { return v.(string) }},
	reflect.TypeFor[bool]():           {parseBool, func(v any) string { return strconv.FormatBool(v.(bool)) }},
	reflect.TypeFor[int]():            {parseInt, func(v any) string { return strconv.Itoa(v.(int)) }},
	reflect.TypeFor[uint16]():         {parseUint16, func(v any) string { return strconv.Itoa(int(v.(uint16))) }},
	reflect.TypeFor[uint32]():         {parseUint32, func(v any) string { return strconv.FormatUint(uint64(v.(uint32)), 10) }},
	reflect.TypeFor[time.Duration]():  {parseDuration, func(v any) string { return formatDuration(v.(time.Duration)) }},
	reflect.TypeFor[Rate]():           {parseRate, func(v any) string { return formatRate(v.(Rate)) }},
	reflect.TypeFor[hostcheck.Name](): {parseName, func(v any) string { return v.(hostcheck.Name).String() }},
	reflect.TypeFor[netip.Addr]():     {parseAddr, func(v any) string { return v.(netip.Addr).String() }},
	reflect.TypeFor[netip.AddrPort](): {parseAddrPort, func(v any) string { return v.(netip.AddrPort).String() }},
	reflect.TypeFor[fs.FileMode]():    {parseMode, func(v any) string { return fmt.Sprintf("%04o", v.(fs.FileMode)) }},
	reflect.TypeFor[netip.Prefix]():   {parsePrefix, func(v any) string { return v.(netip.Prefix).String() }},
}

func parseText(s string) (any, error) {
	if !utf8.ValidString(s) || strings.ContainsFunc(s, unicode.IsControl) {
		return nil, errors.New("contains a control character")
	}
	return s, nil
}

func parseBool(s string) (any, error) {
	switch s {
	case "true":
		return true, nil
	case "false":
		return false, nil
	}
	return nil, fmt.Errorf("%q is neither true nor false", s)
}

func parseInt(s string) (any, error) {
	n, err := strconv.ParseInt(s, 10, 32)
	if err != nil {
		return nil, fmt.Errorf("%q is not a whole number", s)
	}
	return int(n), nil
}

func parseUint16(s string) (any, error) {
	n, err := strconv.ParseUint(s, 10, 16)
	if err != nil {
		return nil, fmt.Errorf("%q is not a number from 0 to 65535", s)
	}
	return uint16(n), nil
}

func parseUint32(s string) (any, error) {
	n, err := strconv.ParseUint(s, 10, 32)
	if err != nil {
		return nil, fmt.Errorf("%q is not a number from 0 to 4294967295", s)
	}
	return uint32(n), nil
}

// parseMode reads permission bits, always octal.
func parseMode(s string) (any, error) {
	n, err := strconv.ParseUint(s, 8, 9)
	if err != nil || len(s) < 3 {
		return nil, fmt.Errorf("%q is not a file mode such as 0640", s)
	}
	return fs.FileMode(n), nil
}

const day = 24 * time.Hour

// parseDuration reads what time.ParseDuration reads, and whole days ("7d").
func parseDuration(s string) (any, error) {
	if days, ok := strings.CutSuffix(s, "d"); ok {
		if n, err := strconv.ParseUint(days, 10, 16); err == nil {
			return time.Duration(n) * day, nil
		}
	} else if d, err := time.ParseDuration(s); err == nil && d >= 0 {
		return d, nil
	}
	return nil, fmt.Errorf("%q is not a duration such as 500ms, 3s, 24h or 7d", s)
}

// formatDuration writes the shortest form that parseDuration reads back.
func formatDuration(d time.Duration) string {
	switch {
	case d > 0 && d%day == 0 && d/day < 1<<16:
		return strconv.Itoa(int(d/day)) + "d"
	case d > 0 && d%time.Hour == 0:
		return strconv.Itoa(int(d/time.Hour)) + "h"
	case d > 0 && d%time.Minute == 0:
		return strconv.Itoa(int(d/time.Minute)) + "m"
	}
	return d.String()
}

var ratePeriods = map[string]time.Duration{"s": time.Second, "m": time.Minute, "h": time.Hour}

func parseRate(s string) (any, error) {
	if s == "0" {
		return Rate{}, nil
	}
	count, unit, _ := strings.Cut(s, "/")
	n, err := strconv.ParseUint(count, 10, 20)
	per, ok := ratePeriods[unit]
	if err != nil || !ok || n == 0 {
		return nil, fmt.Errorf("%q is not a rate such as 1/s, 30/m or 6/h, nor 0 for no limit", s)
	}
	return Rate{Count: int(n), Per: per}, nil
}

func formatRate(r Rate) string {
	for unit, per := range ratePeriods {
		if r.Per == per {
			return strconv.Itoa(r.Count) + "/" + unit
		}
	}
	return "0"
}

// parseName reads a host name. This is the one place where U-labels become
// A-labels (RFC 5891); below it only ASCII names exist.
func parseName(s string) (any, error) {
	ascii := s
	if strings.ContainsFunc(s, func(r rune) bool { return r >= utf8.RuneSelf }) || strings.Contains(strings.ToLower(s), "xn--") {
		var err error
		if ascii, err = idna.Lookup.ToASCII(s); err != nil {
			return nil, fmt.Errorf("%q is not an internationalised host name: %w", s, err)
		}
	}
	return hostcheck.ParseName(ascii) // its error names the name
}

func parseAddr(s string) (any, error) {
	a, err := netip.ParseAddr(s)
	if err != nil {
		return nil, fmt.Errorf("%q is not an IP address", s)
	}
	return a, nil
}

func parseAddrPort(s string) (any, error) {
	ap, err := netip.ParseAddrPort(s)
	if err != nil {
		return nil, fmt.Errorf("%q is not an IP address with a port: write 192.0.2.1:PORT or \"[2001:db8::1]:PORT\"", s)
	}
	return ap, nil
}

func parsePrefix(s string) (any, error) {
	if a, err := netip.ParseAddr(s); err == nil && a.Zone() == "" {
		return netip.PrefixFrom(a, a.BitLen()), nil
	}
	p, err := netip.ParsePrefix(s)
	if err != nil {
		return nil, fmt.Errorf("%q is not an address prefix such as 192.0.2.0/24", s)
	}
	return p.Masked(), nil
}
