package issuer_test

import (
	"bytes"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"io"
	"net/http"
	"slices"
	"strings"
	"sync"
)

// registry stands before an ACME server and writes down, for each name, what the server has agreed to.
type registry struct {
	mu      sync.Mutex
	names   map[string]*entry
	members map[string]string // names by account URL
}

// entry is what a CA knows of one name. The e-mail address of its account begins with the name.
type entry struct {
	accounts, orders, signed int
	keys                     [][]byte // of the requests that were signed, each once, in DER
}

func newRegistry() *registry {
	return &registry{names: make(map[string]*entry), members: make(map[string]string)}
}

// of is what is known of name now.
func (g *registry) of(name string) entry {
	g.mu.Lock()
	defer g.mu.Unlock()
	if e := g.names[name]; e != nil {
		return *e
	}
	return entry{}
}

// forget begins the count of name's orders anew; its accounts stay.
func (g *registry) forget(name string) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.names[name] = &entry{accounts: g.names[name].accounts}
}

func (g *registry) stand(server http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(io.LimitReader(r.Body, 1<<20))
		if err != nil {
			return
		}
		r.Body = io.NopCloser(bytes.NewReader(body))
		answer := &witness{ResponseWriter: w, status: http.StatusOK}
		server.ServeHTTP(answer, r)
		if r.Method == http.MethodPost && answer.status < 300 {
			g.note(r.URL.Path, body, answer.status)
		}
	})
}

// witness remembers the status of an answer.
type witness struct {
	http.ResponseWriter
	status int
}

func (w *witness) WriteHeader(status int) {
	w.status = status
	w.ResponseWriter.WriteHeader(status)
}

// note looks into a request that the server has granted (RFC 8555 section 6.2).
func (g *registry) note(path string, body []byte, status int) {
	var jws struct{ Protected, Payload string }
	var header struct{ Kid string }
	var payload struct {
		Contact     []string
		Identifiers []struct{ Value string }
		CSR         string
	}
	if json.Unmarshal(body, &jws) != nil || !decode(jws.Protected, &header) || !decode(jws.Payload, &payload) {
		return
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	entryOf := func(name string) *entry {
		if g.names[name] == nil {
			g.names[name] = new(entry)
		}
		return g.names[name]
	}
	switch {
	case len(payload.Contact) == 1 && status == http.StatusCreated:
		name, _, _ := strings.Cut(strings.TrimPrefix(payload.Contact[0], "mailto:"), "@")
		entryOf(name).accounts++
	case len(payload.Identifiers) == 1:
		g.members[header.Kid] = payload.Identifiers[0].Value
		entryOf(payload.Identifiers[0].Value).orders++
	case payload.CSR != "":
		e := entryOf(g.members[header.Kid])
		e.signed++
		der, err := base64.RawURLEncoding.DecodeString(payload.CSR)
		if err != nil {
			return
		}
		csr, err := x509.ParseCertificateRequest(der)
		if err == nil && !slices.ContainsFunc(e.keys, func(k []byte) bool { return bytes.Equal(k, csr.RawSubjectPublicKeyInfo) }) {
			e.keys = append(slices.Clip(e.keys), csr.RawSubjectPublicKeyInfo)
		}
	}
}

// decode reads base64url JSON; what is empty decodes to nothing.
func decode(from string, to any) bool {
	b, err := base64.RawURLEncoding.DecodeString(from)
	return err == nil && (len(b) == 0 || json.Unmarshal(b, to) == nil)
}
