package dnscheck

import (
	"fmt"
	"slices"
	"strings"
)

// Issue is the value of an issue property (RFC 8659 section 4.2).
type Issue struct {
	Issuer     string // lower case; "" = no issuer may
	Parameters []Parameter
}

// Parameter is one of an issue property.
type Parameter struct{ Tag, Value string }

// ParseIssue reads the value of an issue property; false = it does not follow the grammar, and then nobody may issue by it.
func ParseIssue(value string) (Issue, bool) {
	domain, rest, more := strings.Cut(value, ";")
	issue := Issue{Issuer: strings.ToLower(trim(domain))}
	if issue.Issuer != "" {
		for _, label := range strings.Split(issue.Issuer, ".") {
			if !isLabel(label) {
				return Issue{}, false
			}
		}
	}
	if !more || trim(rest) == "" {
		return issue, true
	}
	for _, text := range strings.Split(rest, ";") {
		tag, v, ok := strings.Cut(text, "=")
		tag, v = trim(tag), trim(v)
		outside := func(r rune) bool { return r < 0x21 || r > 0x7e }
		if !ok || !isLabel(tag) || strings.ContainsFunc(v, outside) {
			return Issue{}, false
		}
		issue.Parameters = append(issue.Parameters, Parameter{tag, v})
	}
	return issue, true
}

// String writes what ParseIssue reads.
func (i Issue) String() string {
	s := i.Issuer
	for _, p := range i.Parameters {
		s += "; " + p.Tag + "=" + p.Value
	}
	if s == "" {
		s = ";"
	}
	return s
}

// values are those of every parameter with that tag (RFC 8659 section 4.2: tags are compared without case).
func (i Issue) values(tag string) (v []string) {
	for _, p := range i.Parameters {
		if strings.EqualFold(p.Tag, tag) {
			v = append(v, p.Value)
		}
	}
	return v
}

// Record is the CAA record that lets one CA issue to one account by the methods alone (RFC 8657), in zone file form.
func Record(owner, issuer, account string, methods []string) string {
	i := Issue{Issuer: issuer}
	if len(methods) > 0 {
		i.Parameters = append(i.Parameters, Parameter{"validationmethods", strings.Join(methods, ",")})
	}
	if account != "" {
		i.Parameters = append(i.Parameters, Parameter{"accounturi", account})
	}
	return fmt.Sprintf("%s. CAA 0 issue %q", owner, i)
}

// judgeCAA says why the set lets us not issue; "" = it does.
func judgeCAA(set CAASet, w Want) string {
	var refusals []string
	issues := 0
	for _, r := range set.Records {
		text := fmt.Sprintf("the CAA record of %s, %d %s %q,", set.Owner, r.Flags, clean(r.Tag), clean(r.Value))
		switch strings.ToLower(r.Tag) {
		case "issue":
			issues++
			why := judgeIssue(r.Value, w)
			if why == "" {
				continue
			}
			refusals = append(refusals, text+" "+why)
		case "issuewild", "iodef", "issuemail":
		default:
			// Bit 0 of the flags is 128. Many zones set 1 and mean it, and CAs take it so.
			if r.Flags&(128|1) != 0 {
				return text + " is critical and of a kind that CAs do not know, so none may issue"
			}
		}
	}
	if issues > len(refusals) || issues == 0 {
		return ""
	}
	if more := len(refusals) - 1; more > 0 {
		return fmt.Sprintf("%s; %d more there do not help either", refusals[0], more)
	}
	return refusals[0]
}

// judgeIssue says why an issue property is not for us (RFC 8659 section 4.2, RFC 8657 sections 3 and 4); "" = it is.
func judgeIssue(value string, w Want) string {
	issue, ok := ParseIssue(value)
	if !ok {
		return "is malformed and lets nobody issue"
	}
	if issue.Issuer == "" {
		return "lets no CA issue"
	}
	if len(w.Identities) > 0 && !slices.ContainsFunc(w.Identities, func(id string) bool { return strings.EqualFold(id, issue.Issuer) }) {
		return "lets another CA issue, not " + strings.Join(w.Identities, " or ")
	}
	switch accounts := issue.values("accounturi"); {
	case len(accounts) > 1:
		return "names several accounts, which lets none"
	case len(accounts) == 1 && w.Account != "" && accounts[0] != w.Account:
		return "lets another account order, not " + w.Account
	}
	switch methods := issue.values("validationmethods"); {
	case len(methods) > 1:
		return "lists validation methods twice, which allows none"
	case len(methods) == 1 && len(w.Methods) > 0:
		for _, m := range strings.Split(methods[0], ",") {
			if slices.Contains(w.Methods, m) {
				return ""
			}
		}
		return "does not allow validation by " + strings.Join(w.Methods, " or ")
	}
	return ""
}

// isLabel is the grammar of a label and of a parameter's tag: letters and digits, with hyphens inside.
func isLabel(s string) bool {
	inside := func(r rune) bool {
		return r != '-' && (r < '0' || r > '9') && (r < 'a' || r > 'z') && (r < 'A' || r > 'Z')
	}
	return s != "" && !strings.ContainsFunc(s, inside) && s[0] != '-' && s[len(s)-1] != '-'
}

func trim(s string) string { return strings.Trim(s, " \t") }

// clean makes text from the DNS fit for a line: printable ASCII, bounded.
func clean(s string) string {
	s = strings.Map(func(r rune) rune {
		if r < 0x20 || r > 0x7e {
			return '?'
		}
		return r
	}, s[:min(len(s), 200)])
	return s
}
