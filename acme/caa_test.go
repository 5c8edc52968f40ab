package acme

import (
	"testing"

	"ntsagent/hostcheck"
)

func TestARecordNamesTheCATheMethodsAndTheAccount(t *testing.T) {
	name, err := hostcheck.ParseName("alice.example")
	if err != nil {
		t.Fatal(err)
	}
	const uri = "https://ca.example/acct/17"
	both := []string{"http-01", "tls-alpn-01"}
	for _, c := range []struct {
		name, issuer, account string
		methods               []string
		want                  string // "" = an error
	}{
		{"both methods", "letsencrypt.org", uri, both,
			`alice.example. CAA 0 issue "letsencrypt.org; validationmethods=http-01,tls-alpn-01; accounturi=https://ca.example/acct/17"`},
		{"one method", "CA.example.", uri, both[1:], `alice.example. CAA 0 issue "ca.example; validationmethods=tls-alpn-01; accounturi=https://ca.example/acct/17"`},
		{"an account that is not known", "ca.example", "", both, ""},
		{"an account that would end the string", "ca.example", `https://ca.example/"x`, both, ""},
		{"an account that would add a parameter", "ca.example", "https://ca.example/1;x=y", both, ""},
		{"an account over two lines", "ca.example", "https://ca.example/1\n* CAA", both, ""},
		{"a CA that is no name", `ca.example" ; x`, uri, both, ""},
	} {
		got, err := CAARecord(name, c.issuer, c.account, c.methods)
		if got != c.want || (err != nil) != (c.want == "") {
			t.Errorf("%s: %q, %v", c.name, got, err)
		}
	}
}
