package dnscheck

import (
	"reflect"
	"strings"
	"testing"
)

const (
	ourAccount   = "https://ca.example/acct/7"
	otherAccount = "https://ca.example/acct/8"
)

var ours = Want{Identities: []string{"ca.example"}, Account: ourAccount, Methods: []string{"http-01", "tls-alpn-01"}}

func issue(value string) CAA { return CAA{Tag: "issue", Value: value} }

func TestCAADecidesWhoMayIssue(t *testing.T) {
	noAccount, noIdentity := ours, ours
	noAccount.Account, noIdentity.Identities = "", nil
	for _, c := range []struct {
		name    string
		want    Want
		records []CAA
		why     string // part of the refusal; "" = allowed
	}{
		{"no record at all lets anybody issue", ours, nil, ""},
		{"our CA is named", ours, []CAA{issue("ca.example")}, ""},
		{"our CA is named in capitals, with spaces", ours, []CAA{{Tag: "ISSUE", Value: " CA.Example ; "}}, ""},
		{"another CA is named", ours, []CAA{issue("other.example")}, "lets another CA issue, not ca.example"},
		{"another CA is named beside ours", ours, []CAA{issue("other.example"), issue("ca.example")}, ""},
		{"no CA may issue", ours, []CAA{issue(";")}, "lets no CA issue"},
		{"the value is empty", ours, []CAA{issue("")}, "lets no CA issue"},
		{"no CA may, but ours may", ours, []CAA{issue(";"), issue("ca.example")}, ""},
		{"only wildcards are ruled", ours, []CAA{{Tag: "issuewild", Value: ";"}}, ""},
		{"only a place for reports is named", ours, []CAA{{Flags: 128, Tag: "iodef", Value: "mailto:a@b.example"}}, ""},
		{"an unknown tag is no matter", ours, []CAA{{Tag: "tbs", Value: "x"}}, ""},
		{"an unknown critical tag denies, even beside our CA", ours, []CAA{issue("ca.example"), {Flags: 128, Tag: "tbs", Value: "x"}}, "is critical"},
		{"the flag 1 is taken for critical", ours, []CAA{issue("ca.example"), {Flags: 1, Tag: "tbs"}}, "is critical"},
		{"a critical issue record is a known one", ours, []CAA{{Flags: 128, Tag: "issue", Value: "ca.example"}}, ""},
		{"our account is named", ours, []CAA{issue("ca.example; accounturi=" + ourAccount)}, ""},
		{"another account is named", ours, []CAA{issue("ca.example; accounturi=" + otherAccount)}, "lets another account order, not " + ourAccount},
		{"another account is named beside ours", ours, []CAA{issue("ca.example; accounturi=" + otherAccount), issue("ca.example; AccountURI=" + ourAccount)}, ""},
		{"two accounts in one record are none", ours, []CAA{issue("ca.example; accounturi=" + ourAccount + "; accounturi=" + otherAccount)}, "several accounts"},
		{"our account twice in one record is none", ours, []CAA{issue("ca.example; accounturi=" + ourAccount + "; accounturi=" + ourAccount)}, "several accounts"},
		{"our account in another CA's record", ours, []CAA{issue("other.example; accounturi=" + ourAccount)}, "another CA"},
		{"an account is named before we have one", noAccount, []CAA{issue("ca.example; accounturi=" + otherAccount)}, ""},
		{"one of our methods is allowed", ours, []CAA{issue("ca.example; validationmethods=dns-01,tls-alpn-01")}, ""},
		{"none of our methods is allowed", ours, []CAA{issue("ca.example; validationmethods=dns-01")}, "does not allow validation by http-01 or tls-alpn-01"},
		{"no method is allowed", ours, []CAA{issue("ca.example; validationmethods=")}, "does not allow"},
		{"methods differ by case", ours, []CAA{issue("ca.example; validationmethods=HTTP-01")}, "does not allow"},
		{"methods are listed twice", ours, []CAA{issue("ca.example; validationmethods=http-01; validationmethods=http-01")}, "twice"},
		{"account and method must both fit", ours, []CAA{issue("ca.example; validationmethods=dns-01; accounturi=" + ourAccount)}, "does not allow"},
		{"an unknown parameter is the CA's to read", ours, []CAA{issue("ca.example; policy=ev")}, ""},
		{"malformed: a parameter without value", ours, []CAA{issue("ca.example; accounturi")}, "malformed"},
		{"malformed: no semicolon", ours, []CAA{issue("ca.example accounturi=" + ourAccount)}, "malformed"},
		{"malformed: an empty parameter in the middle", ours, []CAA{issue("ca.example;; a=b")}, "malformed"},
		{"malformed: a space in a value", ours, []CAA{issue("ca.example; a=b c")}, "malformed"},
		{"malformed: a NUL", ours, []CAA{issue("ca.example\x00")}, "malformed"},
		{"malformed: a dot too much", ours, []CAA{issue("ca.example.")}, "malformed"},
		{"the CA's names are not known", noIdentity, []CAA{issue("other.example")}, ""},
		{"the CA's names are not known, but none may", noIdentity, []CAA{issue(";")}, "no CA"},
		{"the CA's names are not known, but the account is not ours", noIdentity, []CAA{issue("ca.example; accounturi=" + otherAccount)}, "another account"},
		{"several records, none for us", ours, []CAA{issue("a.example"), issue("b.example"), issue(";")}, "2 more there do not help"},
	} {
		t.Run(c.name, func(t *testing.T) {
			got := judgeCAA(CAASet{Owner: "pool.example", Records: c.records}, c.want)
			if (got == "") != (c.why == "") || !strings.Contains(got, c.why) {
				t.Errorf("refused for %q, want %q", got, c.why)
			}
			if got != "" && !strings.HasPrefix(got, "the CAA record of pool.example, ") {
				t.Errorf("%q does not name the record", got)
			}
		})
	}
}

func TestTheRecordToPublishLetsUsIssue(t *testing.T) {
	r := Record("alice.pool.example", "ca.example", ourAccount, ours.Methods)
	want := `alice.pool.example. CAA 0 issue "ca.example; validationmethods=http-01,tls-alpn-01; accounturi=https://ca.example/acct/7"`
	if r != want {
		t.Errorf("record\n%s, want\n%s", r, want)
	}
	_, value, _ := strings.Cut(r, `"`)
	if why := judgeCAA(CAASet{Owner: "x", Records: []CAA{issue(strings.TrimSuffix(value, `"`))}}, ours); why != "" {
		t.Errorf("it does not let us issue: %s", why)
	}
	if got := Record("a.example", "ca.example", "", nil); got != `a.example. CAA 0 issue "ca.example"` {
		t.Errorf("without account: %s", got)
	}
}

func FuzzParseIssue(f *testing.F) {
	for _, s := range []string{"", ";", "ca.example", " ca.example ; a = b ; c=", "ca.example; accounturi=https://a/1;accounturi=x", "a..b", "-a", "\x00", "a;=;"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		i, ok := ParseIssue(s)
		if !ok {
			if !reflect.DeepEqual(i, Issue{}) {
				t.Fatalf("%q is refused and gives %v", s, i)
			}
			return
		}
		again, ok := ParseIssue(i.String())
		if !ok || !reflect.DeepEqual(i, again) {
			t.Fatalf("%q is %+v, written %q, read again %+v %v", s, i, i.String(), again, ok)
		}
		judgeIssue(s, ours)
	})
}
