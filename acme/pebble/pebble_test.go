package pebble

import (
	"net/http"
	"net/http/httptest"
	"testing"
	"testing/synctest"
	"time"

	"github.com/letsencrypt/pebble/v2/acme"
	"github.com/letsencrypt/pebble/v2/core"
	"github.com/letsencrypt/pebble/v2/db"
)

func TestAnOrderIsShown(t *testing.T) {
	t.Run("at once when nothing is signed", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) { wantShown(t, &core.Order{ID: "1"}, func(*core.Order) {}, 0) })
	})
	t.Run("when its certificate is there, and noted", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			store := db.NewMemoryStore()
			order := &core.Order{ID: "1", BeganProcessing: true}
			wantShownOf(t, store, order, func(o *core.Order) {
				time.Sleep(time.Second)
				certify(o, "0a")
				time.Sleep(time.Second)
				note(t, store, o)
			}, 2*time.Second)
		})
	})
	t.Run("when the one that it replaces is known to be replaced", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			store := db.NewMemoryStore()
			old := &core.Order{ID: "1", BeganProcessing: true}
			certify(old, "0a")
			note(t, store, old)
			order := &core.Order{ID: "2", BeganProcessing: true, Order: acme.Order{Replaces: "AQID.Cg"}}
			certify(order, "0b")
			note(t, store, order)
			wantShownOf(t, store, order, func(*core.Order) {
				time.Sleep(time.Second)
				if err := store.UpdateReplacedOrder("0a", true); err != nil {
					t.Error(err)
				}
			}, time.Second)
		})
	})
	t.Run("though nobody knows what it replaces", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			store := db.NewMemoryStore()
			order := &core.Order{ID: "1", BeganProcessing: true, Order: acme.Order{Replaces: "AQID.Cg"}}
			certify(order, "0b")
			note(t, store, order)
			wantShownOf(t, store, order, func(*core.Order) {}, 0)
		})
	})
	t.Run("after a while though its certificate never comes", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			wantShown(t, &core.Order{ID: "1", BeganProcessing: true}, func(*core.Order) {}, looks*look)
		})
	})
}

// certify lets an order have its certificate, which the server has not noted yet.
func certify(o *core.Order, serial string) {
	o.Lock()
	defer o.Unlock()
	o.CertificateObject = &core.Certificate{ID: serial}
}

// note has the server note under which serial number the order's certificate was made.
func note(t *testing.T, store *db.MemoryStore, o *core.Order) {
	t.Helper()
	if err := store.AddOrderByIssuedSerial(o); err != nil {
		t.Error(err)
	}
}

func wantShown(t *testing.T, order *core.Order, meanwhile func(*core.Order), after time.Duration) {
	t.Helper()
	wantShownOf(t, db.NewMemoryStore(), order, meanwhile, after)
}

// wantShownOf asks for the order while meanwhile runs, and wants the answer after so long.
func wantShownOf(t *testing.T, store *db.MemoryStore, order *core.Order, meanwhile func(*core.Order), after time.Duration) {
	t.Helper()
	if _, err := store.AddOrder(order); err != nil {
		t.Fatal(err)
	}
	began, shown := time.Now(), make(chan time.Time, 1)
	server := Handler(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { shown <- time.Now() }), store)
	go meanwhile(order)
	server.ServeHTTP(httptest.NewRecorder(), httptest.NewRequest(http.MethodPost, orderPath+order.ID, nil))
	if took := (<-shown).Sub(began); took < after || took > after+2*look {
		t.Errorf("the order was shown after %v, not %v", took, after)
	}
}

func TestRequestsTakeTurns(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		inside := 0
		server := Handler(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {
			inside++ // the race detector watches, too
			if inside > 1 {
				t.Error("two requests at a time")
			}
			time.Sleep(time.Second)
			inside--
		}), db.NewMemoryStore())
		for range 3 {
			go server.ServeHTTP(httptest.NewRecorder(), httptest.NewRequest(http.MethodPost, "/order-plz", nil))
		}
		time.Sleep(4 * time.Second)
	})
}
