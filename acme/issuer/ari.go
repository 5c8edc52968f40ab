package issuer

import (
	"context"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"time"

	legoacme "github.com/go-acme/lego/v4/acme"
	"github.com/go-acme/lego/v4/acme/api"
	"github.com/go-acme/lego/v4/certificate"

	"ntsagent/acme"
)

const infoTimeout = time.Minute // one question for renewal information

// RenewalInfo asks the CA when leaf is best renewed (RFC 9773 section 4). It needs no account and waits for no order. lego's own
// question is not used: it does not look at the status of the answer.
func (i *Issuer) RenewalInfo(ctx context.Context, leaf *x509.Certificate) (acme.RenewalInfo, error) {
	id := renewalID(leaf)
	if id == "" {
		return acme.RenewalInfo{}, acme.ErrNoRenewalInfo
	}
	within, cancel := context.WithTimeout(ctx, infoTimeout)
	defer cancel()
	defer i.base.CloseIdleConnections()
	j := &job{issuer: i, session: i.session(within)}
	info, err := j.renewalInfo(id)
	switch {
	case err == nil, errors.Is(err, acme.ErrNoRenewalInfo):
		return info, err
	case ctx.Err() != nil:
		return acme.RenewalInfo{}, ctx.Err()
	}
	return acme.RenewalInfo{}, j.classify(err, "")
}

// renewalID is the CA's name for a certificate (RFC 9773 section 4.1), "" for one that has none.
func renewalID(leaf *x509.Certificate) string {
	if leaf == nil || leaf.SerialNumber == nil || leaf.SerialNumber.Sign() <= 0 || len(leaf.AuthorityKeyId) == 0 {
		return ""
	}
	id, err := certificate.MakeARICertID(leaf)
	if err != nil {
		return ""
	}
	return id
}

func (j *job) renewalInfo(id string) (acme.RenewalInfo, error) {
	var directory legoacme.Directory
	if err := j.get(j.issuer.cfg.Directory, &directory); err != nil {
		return acme.RenewalInfo{}, err
	}
	if directory.RenewalInfo == "" {
		return acme.RenewalInfo{}, acme.ErrNoRenewalInfo
	}
	var answer legoacme.RenewalInfoResponse
	if err := j.get(directory.RenewalInfo+"/"+id, &answer); err != nil {
		return acme.RenewalInfo{}, err
	}
	info := acme.RenewalInfo{Start: answer.SuggestedWindow.Start, End: answer.SuggestedWindow.End, RetryAfter: j.session.lastWait()}
	if u, err := url.Parse(answer.ExplanationURL); err == nil && u.Scheme == "https" && len(answer.ExplanationURL) <= 300 {
		info.Why = u.Redacted()
	}
	return info, nil
}

// get reads one JSON object that needs no signature.
func (j *job) get(from string, into any) error {
	req, err := http.NewRequest(http.MethodGet, from, nil)
	if err != nil {
		return &acme.Error{Class: acme.ClassMalformed, Err: err, Hint: hintNotACME}
	}
	req.Header.Set("User-Agent", userAgent)
	resp, err := j.session.client().Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body) // the session has bounded it
	if err != nil {
		return err
	}
	if resp.StatusCode != http.StatusOK {
		problem := &legoacme.ProblemDetails{HTTPStatus: resp.StatusCode}
		if err := json.Unmarshal(body, problem); err != nil {
			return fmt.Errorf("GET %s: %s", req.URL.Redacted(), resp.Status)
		}
		problem.HTTPStatus, problem.Method, problem.URL = resp.StatusCode, http.MethodGet, from
		return problem
	}
	return json.Unmarshal(body, into)
}

// simpler takes out of a request what the CA has refused the order for and it can do without: a profile it does not make, or the
// certificate that is replaced, which may be of another account or forgotten. "" when there is nothing to take out.
func simpler(request *certificate.ObtainForCSRRequest, core *api.Core, err error) (without string) {
	var p *legoacme.ProblemDetails
	if !errors.As(err, &p) || p.URL != core.GetDirectory().NewOrderURL {
		return ""
	}
	switch class := problemClass(p); {
	case class == acme.ClassRateLimited, p.Type == errNS+"badNonce", p.Type == errNS+"userActionRequired", p.Type == errNS+"accountDoesNotExist":
		return ""
	case p.Type == errNS+"invalidProfile" && request.Profile != "":
		request.Profile = ""
		return "profile"
	case request.ReplacesCertID != "":
		request.ReplacesCertID = ""
		return "replaces"
	}
	return ""
}
