package main

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"ntsagent/ntske/registry"
)

// answer is what a registry says to a query. Its JSON form is stable.
type answer struct {
	Query   string    `json:"query"`
	Entries []meaning `json:"entries"`
	Note    string    `json:"note,omitempty"`
}

// meaning is one thing a number or an id means.
type meaning struct {
	ID        string `json:"id"`
	Meaning   string `json:"meaning"`
	Reference string `json:"reference"`
	Private   bool   `json:"private"`
	KeyLen    int    `json:"key_octets,omitempty"` // of an AEAD; so are the next two
	NonceMin  int    `json:"nonce_octets_min,omitempty"`
	NonceMax  int    `json:"nonce_octets_max,omitempty"` // absent: no limit
}

// kind is a registry as it is asked for.
type kind struct {
	name, what string
	ask        func(id string) ([]meaning, error) // the error says how an id is written
}

var kinds = []kind{
	{"refid", "reference ids", askRefID},
	{"kiss", "kiss codes", askKiss},
	{"ef", "types of extension fields", askNumber(registry.Field, "0x%04X", 1<<16-1)},
	{"record", "types of NTS-KE records", askNumber(registry.Record, "%d", 1<<15-1)},
	{"proto", "NTS next protocols", askNumber(registry.Protocol, "%d", 1<<16-1)},
	{"error", "NTS-KE error codes", askNumber(registry.ErrorCode, "%d", 1<<16-1)},
	{"warning", "NTS-KE warning codes", askNumber(registry.WarningCode, "%d", 1<<16-1)},
	{"aead", "AEAD algorithms", askAEAD},
}

// kindNames lists what a query may begin with.
func kindNames() string {
	var names []string
	for _, k := range kinds {
		names = append(names, k.name)
	}
	return strings.Join(names, ", ")
}

func registryCommand(g *globals) *cobra.Command {
	var list strings.Builder
	for _, k := range kinds {
		fmt.Fprintf(&list, "  %-9s%s\n", k.name, k.what)
	}
	return verb(&cobra.Command{
		Use:   "registry KIND:ID",
		Short: "look a number or id up in the registries of NTP and NTS",
		Long: `registry tells what a number or id of NTP or NTS means and where it is defined,
from the registries of RFC 9748 and RFC 8915 as they are built in. KIND is one of

` + list.String() + `
Numbers are decimal, or hexadecimal with 0x. It exits 0 when the meaning is
known and 1 when it is not, also for what is private.`,
		Example: "  ntsagent registry refid:GPS\n  ntsagent registry ef:0x0204",
		Args:    oneArgument("KIND:ID"),
		RunE: func(cmd *cobra.Command, args []string) error {
			a, err := lookUp(args[0])
			if err != nil {
				return misused(cmd, err.Error())
			}
			if why := a.unregistered(); why != "" {
				return exit(exitFailed, errors.New(why))
			}
			return show(cmd, g, a, a.text())
		},
	}, "json", "quiet")
}

// lookUp answers KIND:ID.
func lookUp(query string) (answer, error) {
	name, id, ok := strings.Cut(query, ":")
	at := slices.IndexFunc(kinds, func(k kind) bool { return k.name == name })
	if !ok || at < 0 {
		return answer{}, fmt.Errorf("%q: use KIND:ID, where KIND is one of %s", query, kindNames())
	}
	entries, err := kinds[at].ask(id)
	if err != nil {
		return answer{}, fmt.Errorf("%s %w", name, err)
	}
	a := answer{Query: query, Entries: entries}
	if name == "ef" && len(entries) > 1 {
		a.Note = "the packet decides: NTS if it has extension fields 0x0104 and 0x0404 too, else Autokey"
	}
	return a, nil
}

// unregistered says of a query that there is nothing to tell; "" if there is something.
func (a answer) unregistered() string {
	switch {
	case len(a.Entries) == 0:
		return a.Query + " is not registered"
	case a.Entries[0].Meaning == "" || a.Entries[0].Meaning == registry.PrivateUse:
		return a.Query + " is not registered: it is private (" + a.Entries[0].Reference + ")"
	}
	return ""
}

// text is the answer for people, a line for each meaning.
func (a answer) text() string {
	var b strings.Builder
	for _, m := range a.Entries {
		fmt.Fprintf(&b, "%-8s  %s (%s)", m.ID, m.Meaning, m.Reference)
		if m.Private {
			b.WriteString(", private")
		}
		if m.KeyLen > 0 {
			fmt.Fprintf(&b, ", key of %d octets, nonce of %s", m.KeyLen, m.nonce())
		}
		b.WriteByte('\n')
	}
	if a.Note != "" {
		fmt.Fprintf(&b, "%-8s  %s\n", "", a.Note)
	}
	return b.String()
}

// nonce says how long the nonce of an AEAD may be.
func (m meaning) nonce() string {
	switch m.NonceMax {
	case 0:
		return fmt.Sprintf("%d or more", m.NonceMin)
	case m.NonceMin:
		return strconv.Itoa(m.NonceMin)
	default:
		return fmt.Sprintf("%d to %d", m.NonceMin, m.NonceMax)
	}
}

// askRefID reads an id of a clock, or an address as a server of stratum 2 and above has it.
func askRefID(s string) ([]meaning, error) {
	if a, err := netip.ParseAddr(s); err == nil && a.Is4() {
		return meaningOf(registry.RefID(a.As4(), 2)), nil
	}
	octets, err := registry.ParseID(s)
	return meaningOf(registry.RefID(octets, 1)), err
}

func askKiss(s string) ([]meaning, error) {
	octets, err := registry.ParseID(s)
	return meaningOf(registry.Kiss(octets)), err
}

// meaningOf is nothing for an id that is neither registered nor private.
func meaningOf(id registry.ID) []meaning {
	switch {
	case id.Private:
		return []meaning{{ID: id.Text, Reference: "RFC 9748", Private: true}}
	case id.Meaning == "":
		return nil
	}
	return []meaning{{ID: id.Text, Meaning: id.Meaning, Reference: id.Reference}}
}

// askNumber asks a registry of numbers up to last, which it writes by format.
func askNumber(look func(uint16) []registry.Entry, format string, last uint64) func(string) ([]meaning, error) {
	return func(s string) (all []meaning, err error) {
		n, err := number(s, last)
		if err != nil {
			return nil, err
		}
		for _, e := range look(n) {
			all = append(all, meaning{ID: fmt.Sprintf(format, n), Meaning: e.Meaning, Reference: e.Reference, Private: e.Private})
		}
		return all, nil
	}
}

func askAEAD(s string) ([]meaning, error) {
	n, err := number(s, 1<<16-1)
	if err != nil {
		return nil, err
	}
	a, ok := registry.AEAD(n)
	if !ok {
		return nil, nil
	}
	return []meaning{{strconv.Itoa(int(n)), a.Name, a.Reference, a.Private, a.KeyLen, a.NonceMin, a.NonceMax}}, nil
}

// number reads a decimal number, or a hexadecimal one after 0x.
func number(s string, last uint64) (uint16, error) {
	digits, base := s, 10
	if hex, ok := strings.CutPrefix(s, "0x"); ok {
		digits, base = hex, 16
	}
	n, err := strconv.ParseUint(digits, base, 16)
	if err != nil || n > last {
		return 0, fmt.Errorf("%q: use a number of 0 to %d, or in hexadecimal 0x0 to 0x%X", s, last, last)
	}
	return uint16(n), nil
}
