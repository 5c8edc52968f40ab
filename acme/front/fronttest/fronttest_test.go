package fronttest

import (
	"slices"
	"testing"
)

func TestServersAreAwaitedWhereverTheyListen(t *testing.T) {
	for conf, want := range map[string][]string{
		"server { listen 80 default_server; listen [::]:80; } server { listen 127.0.0.1:8443 ssl; listen [::1]:8443 ssl; ssl_preread on; }": {
			"127.0.0.1:80", "[::1]:80", "127.0.0.1:8443", "[::1]:8443"},
		"frontend http\n bind :80,:::80 v6only\n server listener 192.0.2.1:1\nfrontend tls\n bind 127.0.0.1:443,::1:443 ssl\n": {
			"127.0.0.1:80", "[::1]:80", "127.0.0.1:443", "[::1]:443"},
	} {
		if got := listeners(conf); !slices.Equal(got, want) {
			t.Errorf("%q listens at %q, want %q", conf, got, want)
		}
	}
}
