package config

import (
	"net/netip"
	"reflect"
	"time"
)

// Default is the configuration of an empty file. It is complete but for what
// only the operator knows: the names, the e-mail and the consent to the terms.
func Default() *Config {
	return &Config{
		ACME: ACME{
			Directory:  "https://acme-v02.api.letsencrypt.org/directory",
			Profile:    "tlsserver",
			KeyType:    "ecdsa-p256",
			Challenges: []string{ChallengeHTTP01, ChallengeTLSALPN01},
			HTTP01:     HTTP01{Mode: HTTP01Listen, Listen: everywhere(80)},
			TLSALPN01:  TLSALPN01{Mode: TLSALPN01Listen, Listen: everywhere(443)},
		},
		Certificate: Certificate{Source: SourceACME},
		KE: KE{
			Listen:          everywhere(4460),
			Timeout:         3 * time.Second,
			MaxSessions:     512,
			MaxPoolSessions: 32,
			Cookies:         8,
			Limits:          Limits{PerPrefix: Rate{Count: 1, Per: time.Second}, Burst: 16, V4Prefix: 24, V6Prefix: 56},
		},
		Daemon: Daemon{
			Kind:    KindAuto,
			Mode:    ModeAuto,
			Address: netip.MustParseAddrPort("127.0.0.1:123"),
			Chrony: Chrony{
				KeysFile:      "/var/lib/chrony/ntskeys",
				CommandSocket: "/run/chrony/chronyd.sock",
				ParkedKEPort:  14460,
			},
			NTPsec:  KeysFile{"/var/lib/ntpsec/nts-keys"},
			NTPDRS:  KeysFile{"/var/lib/ntpd-rs/keys"},
			Gateway: Gateway{Listen: everywhere(4123), Mode: ModeMirror, Limits: GatewayLimits{Burst: 64}},
		},
		Keys:     Keys{Keep: 10},
		Services: Services{Monitor: Monitor{Access: "public"}},
		Observe: Observe{
			Socket:     "/run/ntsagent/control.sock",
			Metrics:    "127.0.0.1:9560",
			StatusPage: "127.0.0.1:9561",
			SelfCheck:  time.Minute,
		},
		Log:      Log{Level: "info", Format: "text"},
		StateDir: "/var/lib/ntsagent",
	}
}

// everywhere listens on both families; two sockets, because one dual-stack
// socket would show IPv4 peers as mapped addresses.
func everywhere(port uint16) []netip.AddrPort {
	return []netip.AddrPort{
		netip.AddrPortFrom(netip.IPv6Unspecified(), port),
		netip.AddrPortFrom(netip.IPv4Unspecified(), port),
	}
}

// itemDefaults are the values an item of a list begins with, by its type.
var itemDefaults = map[reflect.Type]any{
	reflect.TypeFor[Export](): Export{Mode: 0o640, Then: ThenNone, PIDFile: "/run/ntpd.pid"},
}
