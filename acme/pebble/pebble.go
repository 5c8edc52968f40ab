// Package pebble stands before Let's Encrypt's test server in tests and in the lab. No part of the agent uses it.
package pebble

import (
	"encoding/base64"
	"encoding/hex"
	"log"
	"net/http"
	"reflect"
	"strings"
	"time"

	"github.com/letsencrypt/pebble/v2/acme"
	"github.com/letsencrypt/pebble/v2/db"
	"github.com/letsencrypt/pebble/v2/va"
	"github.com/miekg/dns"
)

const (
	orderPath = "/my-order/" // where pebble shows an order
	look      = time.Millisecond
	looks     = 5000 // at an order; counted, for a machine that stands still lets time go by without signing
)

// lookup is how long a lookup of a name may take: as long as the rest of a validation.
const lookup = 15 * time.Second

// Validator is the server's own, which asks the DNS server at an address. By itself it does so over TCP, and a validation
// fails when this machine stands still for the one or two seconds that it and small DNS servers give a connection.
func Validator(logger *log.Logger, httpPort, tlsPort int, server string, store *db.MemoryStore) *va.VAImpl {
	v := va.New(logger, httpPort, tlsPort, true, server, store)
	client := *(**dns.Client)(reflect.ValueOf(v).Elem().FieldByName("dnsClient").Addr().UnsafePointer()) // there is no other way to it
	client.Net, client.Timeout = "udp", lookup
	return v
}

// Handler is the server's own handler without the ways for it to hang itself that pebble 2.10.1 has. To show an order it takes
// the order's read lock twice, and waits for ever if a certificate comes in between, which locks it to write: a request for an
// order is held back until its certificate is there, some seconds at most. And its handlers take the locks of authorizations and of
// the store in different orders: they run one at a time. It notes under which serial number a certificate was made, and which
// one that has replaced, when it may have been shown already: the request waits for that, too.
func Handler(server http.Handler, store *db.MemoryStore) http.Handler {
	turn := make(chan struct{}, 1)
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		turn <- struct{}{}
		defer func() { <-turn }()
		if id, found := strings.CutPrefix(r.URL.Path, orderPath); found {
			for n := 0; n < looks && unsettled(store, id) && r.Context().Err() == nil; n++ {
				<-turn
				time.Sleep(look)
				turn <- struct{}{}
			}
		}
		server.ServeHTTP(w, r)
	})
}

// unsettled tells whether the server is still at work on an order.
func unsettled(store *db.MemoryStore, id string) bool {
	order := store.GetOrderByID(id)
	if order == nil {
		return false
	}
	order.RLock()
	status, certificate, replaces := order.Status, order.CertificateObject, order.Replaces
	order.RUnlock()
	if certificate == nil {
		return status == acme.StatusProcessing
	}
	if _, err := store.GetOrderByIssuedSerial(certificate.ID); err != nil {
		return true
	}
	_, serial, _ := strings.Cut(replaces, ".") // RFC 9773 section 4.1
	b, _ := base64.RawURLEncoding.DecodeString(serial)
	replaced, err := store.GetOrderByIssuedSerial(hex.EncodeToString(b))
	if err != nil {
		return false // it replaces none that the server knows
	}
	replaced.RLock()
	defer replaced.RUnlock()
	return !replaced.IsReplaced
}
