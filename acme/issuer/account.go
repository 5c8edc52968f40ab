package issuer

import (
	"context"
	"crypto"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strings"
	"time"

	legoacme "github.com/go-acme/lego/v4/acme"
	"github.com/go-acme/lego/v4/acme/api"
	"github.com/go-acme/lego/v4/registration"

	"ntsagent/acme"
	"ntsagent/acme/store"
	"ntsagent/hostcheck"
)

// user is lego's view of an account.
type user struct{ a store.Account }

func (u user) GetEmail() string                        { return u.a.Email }
func (u user) GetRegistration() *registration.Resource { return &registration.Resource{URI: u.a.URI} }
func (u user) GetPrivateKey() crypto.PrivateKey        { return u.a.Key }

// storedAccount returns the account of the store, or a new one whose key is on disk before any server hears of it: an account
// whose key is lost cannot be used, closed, or named in a CAA record again.
func (i *Issuer) storedAccount() (store.Account, error) {
	a, err := i.cfg.Store.Account(i.cfg.Directory)
	if err == nil {
		return a, nil
	}
	if !errors.Is(err, fs.ErrNotExist) {
		return store.Account{}, &acme.Error{Class: acme.ClassAccount, Err: err, Hint: "see that the agent may read its state_dir"}
	}
	if !i.cfg.AgreeToTerms {
		return store.Account{}, errNoConsent("")
	}
	key, err := store.NewKey(store.P256)
	if err != nil {
		return store.Account{}, err
	}
	a = store.Account{Directory: i.cfg.Directory, Email: i.cfg.Email, Key: key}
	return a, i.cfg.Store.SaveAccount(a)
}

func errNoConsent(terms string) error {
	where := ""
	if terms != "" {
		where = " at " + terms
	}
	return &acme.Error{Class: acme.ClassAccount, Err: errors.New("the CA's terms of service are not agreed to"),
		Hint: "read the terms" + where + " and set acme.agree_to_terms: true"}
}

// ensureRegistered gives an account that has no URI yet the one it has at the server: the one that exists for its key, else
// that of a new registration.
func (i *Issuer) ensureRegistered(core *api.Core, a store.Account) (store.Account, error) {
	identities := caaIdentities(core.GetDirectory().Meta.CaaIdentities)
	if a.URI != "" {
		if slices.Equal(identities, a.CAAIdentities) {
			return a, nil
		}
		a.CAAIdentities = identities
		if err := i.cfg.Store.SaveAccount(a); err != nil { // the order does not need it
			i.cfg.Log.Warn("names of the CA in CAA records not kept", "error", err)
		}
		return a, nil
	}
	if a.Email == "" {
		a.Email = i.cfg.Email
	}
	registrar := registration.NewRegistrar(core, user{a})
	resource, err := registrar.ResolveAccountByKey()
	if isType(err, "accountDoesNotExist") {
		meta := core.GetDirectory().Meta
		if !i.cfg.AgreeToTerms {
			return a, errNoConsent(meta.TermsOfService)
		}
		resource, err = i.register(registrar, meta.ExternalAccountRequired)
	}
	if err != nil {
		return a, fmt.Errorf("register account: %w", err)
	}
	if !strings.HasPrefix(resource.URI, "https://") {
		return a, &acme.Error{Class: acme.ClassMalformed, Err: errors.New("the ACME server gave the account no https URL"), Hint: hintNotACME}
	}
	a.URI, a.CAAIdentities = resource.URI, identities
	if err := i.cfg.Store.SaveAccount(a); err != nil {
		return a, err
	}
	i.cfg.Log.Info("account registered", "directory", a.Directory, "account", a.URI)
	return a, nil
}

// registerTimeout bounds one Register.
const registerTimeout = 2 * time.Minute

// Register opens the account if there is none yet, before any certificate is ordered: who may turn to a CA some day has to name
// its account in CAA records today. It changes nothing if there is one. Like an order it is left behind when ctx is done.
func (i *Issuer) Register(ctx context.Context) error {
	within, cancel := context.WithTimeout(ctx, registerTimeout)
	defer cancel()
	select {
	case i.slot <- struct{}{}: // an order may be opening it
	case <-within.Done():
		return within.Err()
	}
	j, done := &job{issuer: i, session: i.session(within)}, make(chan *acme.Error, 1)
	go func() {
		defer func() { <-i.slot }()
		defer i.base.CloseIdleConnections()
		done <- j.open()
	}()
	select {
	case e := <-done:
		if e == nil || ctx.Err() != nil {
			return ctx.Err()
		}
		return i.advised(e)
	case <-within.Done():
		return within.Err()
	}
}

// open registers the account of the store if it is not, without an order.
func (j *job) open() (failure *acme.Error) {
	defer j.survive(&failure)
	a, err := j.issuer.storedAccount()
	if err == nil && a.URI != "" {
		return nil
	}
	if err == nil {
		var core *api.Core
		if core, err = j.core(a); err == nil {
			_, err = j.issuer.ensureRegistered(core, a)
		}
	}
	if err != nil {
		return j.classify(err, "")
	}
	return nil
}

// fallbackKeys has the keys of the configuration that are called otherwise for the fallback CA.
var fallbackKeys = strings.NewReplacer("acme.directory", "acme.fallback_directory", "acme.eab", "acme.fallback_eab")

// advised is e with the keys of the configuration that are this CA's.
func (i *Issuer) advised(e *acme.Error) *acme.Error {
	if e == nil || !i.cfg.Fallback {
		return e
	}
	own := *e
	own.Hint, own.Err = fallbackKeys.Replace(e.Hint), fmt.Errorf("%s", fallbackKeys.Replace(e.Error()))
	return &own
}

// maxIdentities bounds how many names a CA may give itself; those that are known have one to four.
const maxIdentities = 8

// caaIdentities are those words of a directory that can stand in a CAA record for a CA.
func caaIdentities(said []string) []string {
	var names []string
	for _, s := range said {
		if n, err := hostcheck.ParseName(s); err == nil && len(names) < maxIdentities {
			names = append(names, n.String())
		}
	}
	return names
}

// isType tells whether err is the ACME problem of that type.
func isType(err error, kind string) bool {
	var p *legoacme.ProblemDetails
	return errors.As(err, &p) && p.Type == errNS+kind
}
