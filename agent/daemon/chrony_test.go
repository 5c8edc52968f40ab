package daemon

import (
	"net/netip"
	"testing"
	"time"
)

func TestSpacingStaysBelowTheLimit(t *testing.T) {
	for _, c := range []struct {
		sentence string
		limit    *RateLimit
		least    time.Duration
		most     time.Duration
	}{
		{"without a limit a fifth of a second", nil, unlimited, unlimited},
		{"interval 3 is more than 8 s", &RateLimit{3, 1, 2}, 8*time.Second + 125*time.Millisecond, 9 * time.Second},
		{"interval 0 is more than a second", &RateLimit{0, 1, 2}, time.Second + 125*time.Millisecond, 2 * time.Second},
		{"a negative interval is a fraction", &RateLimit{-4, 8, 2}, unlimited, 500 * time.Millisecond},
		{"the highest is more than an hour", &RateLimit{12, 8, 2}, 4096 * time.Second, 4400 * time.Second},
		{"the lowest is no shorter than without a limit", &RateLimit{-19, 8, 2}, unlimited, 500 * time.Millisecond},
	} {
		t.Run(c.sentence, func(t *testing.T) {
			got := Chrony{RateLimit: c.limit}.Spacing()
			if got < c.least || got > c.most {
				t.Errorf("Spacing = %s; want %s to %s", got, c.least, c.most)
			}
		})
	}
	if got := unknownSpacing(); got < 8*time.Second {
		t.Errorf("unknownSpacing = %s", got)
	}
}

func TestAddress(t *testing.T) {
	for _, c := range []struct {
		sentence, conf, want string
	}{
		{"without bindaddress it is the loopback", "", "127.0.0.1:123"},
		{"the port is chronyd's", "port 11123", "127.0.0.1:11123"},
		{"a bindaddress is where it answers", "bindaddress 192.0.2.1\nbindaddress 2001:db8::1", "192.0.2.1:123"},
		{"a wildcard is the loopback", "bindaddress 0.0.0.0", "127.0.0.1:123"},
		{"with IPv6 alone it is that one", "bindaddress ::1", "[::1]:123"},
		{"an interface's name tells nothing", "bindaddress eth0", "127.0.0.1:123"},
		{"port 0 serves nowhere", "port 0", ""},
	} {
		t.Run(c.sentence, func(t *testing.T) {
			dir := tree(t, map[string]string{"c": c.conf})
			conf, err := ReadChrony(dir + "/c")
			if err != nil {
				t.Fatal(err)
			}
			got, err := conf.Address()
			if (err == nil) != (c.want != "") || err == nil && got.String() != c.want {
				t.Errorf("Address = %s, %v; want %s", got, err, c.want)
			}
		})
	}
}

func TestChronyTarget(t *testing.T) {
	ours := Chronyd{Addr: netip.MustParseAddrPort("127.0.0.2:1123"), KeysFile: "/v/ntskeys", CommandSocket: "/s"}
	dir := tree(t, map[string]string{"c": "port 11123\nratelimit interval 5\n", "bad": "port x\n", "off": "port 0\n"})
	for _, c := range []struct {
		sentence, conf string
		spacing        time.Duration
		readable       bool
	}{
		{"chrony.conf says how often", "/c", spacing(5), true},
		{"without chrony.conf we are careful", "/none", spacing(3), false},
		{"with one that makes no sense too", "/bad", spacing(3), false},
		{"an address of ours is asked whatever the port", "/off", unlimited, true},
	} {
		t.Run(c.sentence, func(t *testing.T) {
			ours.ConfigFile = dir + c.conf
			got := ChronyTarget(ours)
			if got.Chronyd != ours || got.Spacing != c.spacing || (got.ConfErr == nil) != c.readable {
				t.Errorf("ChronyTarget = %+v", got)
			}
		})
	}
}
