package issuer

import (
	"bytes"
	"encoding/base64"
	"errors"
	"fmt"
	"io/fs"
	"strings"

	legoacme "github.com/go-acme/lego/v4/acme"
	"github.com/go-acme/lego/v4/registration"

	"ntsagent/acme"
	"ntsagent/acme/disk"
)

// EAB is an external account binding (RFC 8555 section 7.3.4): what a CA gives its customers to open an account with. The zero
// value is none. The key stays in its file and is read when an account is registered, never else.
type EAB struct {
	KID      string // the CA's name for the key
	HMACFile string // absolute path; base64url, as the CA has given it
}

const (
	maxHMACFile = 4 << 10
	minHMAC     = 16 // octets; CAs give 32 or 64, and a file that was cut short shall not go unnoticed
)

// key reads the HMAC key, in the form that it was given in. No error tells of what is in the file.
func (e EAB) key() (string, error) {
	text, err := disk.ReadSecret(e.HMACFile, maxHMACFile)
	if err != nil {
		return "", err
	}
	text = bytes.TrimRight(bytes.TrimSpace(text), "=")
	raw, err := base64.RawURLEncoding.DecodeString(string(text))
	switch {
	case err != nil:
		return "", fmt.Errorf("%s is not base64url", e.HMACFile)
	case len(raw) < minHMAC:
		return "", fmt.Errorf("%s holds a key of %d octets, and CAs give 32 or more", e.HMACFile, len(raw))
	}
	return string(text), nil
}

// register opens an account at a CA; wanted = it takes none but its customers.
func (i *Issuer) register(registrar *registration.Registrar, wanted bool) (*registration.Resource, error) {
	eab := i.cfg.EAB
	if eab == (EAB{}) {
		if wanted {
			return nil, &acme.Error{Class: acme.ClassAccount, Err: errors.New("the CA gives accounts to its customers only, by external account binding"),
				Hint: "get a key id and an HMAC key from the CA and set acme.eab: {kid: …, hmac_file: …}, or choose another acme.directory"}
		}
		return registrar.Register(registration.RegisterOptions{TermsOfServiceAgreed: true})
	}
	key, err := eab.key()
	if err != nil {
		hint := "write the key there as the CA has given it, in base64url, for the agent's user alone to read"
		if errors.Is(err, fs.ErrPermission) {
			hint = "let the agent's user, or its group, read that file"
		}
		return nil, &acme.Error{Class: acme.ClassAccount, Err: fmt.Errorf("acme.eab: HMAC key: %w", err), Hint: hint}
	}
	r, err := registrar.RegisterWithExternalAccountBinding(registration.RegisterEABOptions{TermsOfServiceAgreed: true, Kid: eab.KID, HmacEncoded: key})
	var p *legoacme.ProblemDetails
	if !errors.As(err, &p) {
		return r, err
	}
	switch problemClass(p) {
	case acme.ClassRateLimited, acme.ClassNetwork:
		return nil, err
	}
	text := strings.ReplaceAll(problemText(p), key, "[key]") // no CA is known to quote what it was not sent
	return nil, &acme.Error{Class: acme.ClassAccount, Err: fmt.Errorf("the CA opens no account with acme.eab: %s", text),
		Hint: "see that kid and hmac_file are what the CA has given, together, and have not been used or revoked"}
}
