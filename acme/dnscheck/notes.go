package dnscheck

import (
	"net/netip"
	"slices"
)

// families are the two kinds of address record, as a Source holds them.
var families = []struct {
	record string
	is4    bool
	of     func(Source) Answer
}{
	{"A", true, func(s Source) Answer { return s.A }},
	{"AAAA", false, func(s Source) Answer { return s.AAAA }},
}

// lacks tells of a family without an address in the DNS although clients of it could be served, or because nobody answers for it.
func (o Observation) lacks(v4, v6 []netip.Addr, w Want) (notes []string) {
	ours, where := w.Host, "is an address of this host"
	if len(w.Public) > 0 {
		ours, where = w.Public, "is in public_addresses"
	}
	for _, f := range families {
		if f.is4 && len(v4) > 0 || !f.is4 && len(v6) > 0 {
			continue
		}
		answered := func(s Source) bool { return f.of(s).absent() }
		failed := slices.IndexFunc(o.Sources, func(s Source) bool { return f.of(s).Why != "" })
		usable := slices.IndexFunc(ours, func(a netip.Addr) bool { return a.Is4() == f.is4 && (len(w.Public) > 0 || isPublic(a)) })
		switch {
		case !slices.ContainsFunc(o.Sources, answered) && failed >= 0:
			s := o.Sources[failed]
			notes = append(notes, "nobody tells whether there is an "+f.record+" record: "+s.Server+" "+f.of(s).Why)
		case usable >= 0:
			notes = append(notes, "there is no "+f.record+" record, and "+ours[usable].String()+" "+where)
		}
	}
	return notes
}

// disagreement tells of servers that do not say what those say that are gone by.
func (o Observation) disagreement(v4, v6 []netip.Addr) (notes []string) {
	for _, s := range o.Sources {
		for _, f := range families {
			want, a := v4, f.of(s)
			if !f.is4 {
				want = v6
			}
			if a.Result == Failed || len(notes) == 4 {
				continue
			}
			differs := func(a, b []netip.Addr) bool {
				return slices.ContainsFunc(a, func(x netip.Addr) bool { return !slices.Contains(b, x.Unmap()) })
			}
			got := union([]Source{s}, f.of)
			if !differs(got, want) && !differs(want, got) {
				continue
			}
			has, others := "no "+f.record, "none"
			if len(got) > 0 {
				has = text(got)
			}
			if len(want) > 0 {
				others = text(want)
			}
			if note := s.Server + " has " + has + " where others have " + others; !slices.Contains(notes, note) {
				notes = append(notes, note)
			}
		}
	}
	return notes
}
