// Package config turns the agent's YAML file into one typed, valid Config.
//
// Load and Parse are the only ways in: unknown keys, wrong types, values out of
// range and keys that this version does not act on yet are all refused, each
// with file, line, key and a hint, so that the rest of the agent never has to
// ask whether a value makes sense. Every key has a default (Default); a file
// needs no more than the names, the consent to the CA's terms and an e-mail.
//
// This is the only package that imports a YAML library.
package config

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/netip"
	"os"
	"time"

	"ntsagent/hostcheck"
)

// DefaultPath is where the agent looks for its configuration.
const DefaultPath = "/etc/ntsagent/ntsagent.yaml"

// maxSize bounds a configuration file in octets; a real one has some 3000.
const maxSize = 256 << 10

// Config is the whole configuration. Its shape is the shape of the file: the
// yaml tags are the keys, and `auto` in a tag says that the word "auto" stands
// for the zero value of that field. A Config from Parse or Load is valid and
// must not be changed.
type Config struct {
	Names           []hostcheck.Name `yaml:"names"`                 // one certificate each, in order; never empty
	PublicAddresses []netip.Addr     `yaml:"public_addresses,auto"` // nil = auto
	ACME            ACME             `yaml:"acme"`
	Certificate     Certificate      `yaml:"certificate"`
	KE              KE               `yaml:"ke"`
	Daemon          Daemon           `yaml:"daemon"`
	Keys            Keys             `yaml:"keys"`
	Pools           []Pool           `yaml:"pools"`
	Services        Services         `yaml:"services"`
	Observe         Observe          `yaml:"observe"`
	Log             Log              `yaml:"log"`
	StateDir        string           `yaml:"state_dir"`
}

// ACME says where and how certificates are ordered.
type ACME struct {
	Directory         string           `yaml:"directory"` // https URL
	Email             string           `yaml:"email"`     // may be empty
	AgreeToTerms      bool             `yaml:"agree_to_terms"`
	Profile           string           `yaml:"profile"`
	KeyType           string           `yaml:"key_type"`
	Challenges        []string         `yaml:"challenges"` // ChallengeHTTP01, ChallengeTLSALPN01, in the order to try
	HTTP01            HTTP01           `yaml:"http01"`
	TLSALPN01         TLSALPN01        `yaml:"tls_alpn01"`
	EAB               EAB              `yaml:"eab"`
	CAFile            string           `yaml:"ca_file"`            // PEM file with more roots for the directories; "" = none
	Resolvers         []netip.AddrPort `yaml:"resolvers,auto"`     // asked for a name before each order, the first two; nil = auto
	FallbackDirectory string           `yaml:"fallback_directory"` // https URL of the CA to turn to when the other fails; "" = none
	FallbackEAB       EAB              `yaml:"fallback_eab"`
}

// The challenges of acme.challenges, by their names in RFC 8555 and RFC 8737.
const (
	ChallengeHTTP01    = "http-01"
	ChallengeTLSALPN01 = "tls-alpn-01"
)

// The values of acme.http01.mode.
const (
	HTTP01Listen  = "listen"  // the agent has port 80
	HTTP01Proxy   = "proxy"   // a web server has it and passes the CA on to the agent
	HTTP01Webroot = "webroot" // a web server has it and serves a folder that the agent writes to
)

// HTTP01 says who answers on port 80.
type HTTP01 struct {
	Mode      string           `yaml:"mode"`
	Listen    []netip.AddrPort `yaml:"listen"`     // loopback alone with HTTP01Proxy, of no use with HTTP01Webroot
	HostPorts []uint16         `yaml:"host_ports"` // ports the Host field may name besides 80 and those of Listen
	Webroot   string           `yaml:"webroot"`    // the folder of HTTP01Webroot, else ""
	Redirect  Redirect         `yaml:"redirect"`
}

// Redirect leads browsers elsewhere that come to port 80 by one of these hosts;
// the zero value leads nobody.
type Redirect struct {
	Hosts []hostcheck.Name `yaml:"hosts"` // own names or others that lead here, such as the pool's
	To    string           `yaml:"to"`    // http or https URL
}

// The values of acme.tls_alpn01.mode.
const (
	TLSALPN01Listen = "listen" // the agent has port 443
	TLSALPN01Proxy  = "proxy"  // a router has it and passes TLS for our names on to the agent, as it came
)

// TLSALPN01 says who answers acme-tls/1 on port 443.
type TLSALPN01 struct {
	Mode   string           `yaml:"mode"`
	Listen []netip.AddrPort `yaml:"listen"` // loopback alone with TLSALPN01Proxy
}

// EAB is an external account binding (RFC 8555 section 7.3.4), the zero value none;
// the HMAC key stays in its own file.
type EAB struct {
	KID      string `yaml:"kid"`
	HMACFile string `yaml:"hmac_file"` // base64url, read when the account is opened
}

// The two values of certificate.source.
const (
	SourceACME  = "acme"  // the agent orders and renews
	SourceFiles = "files" // someone else writes PEM files, the agent watches them
)

// Certificate says whose work the certificates are. Cert and Key are the short
// form for exactly one name; Files is the list for several.
type Certificate struct {
	Source string             `yaml:"source"`
	Cert   string             `yaml:"cert"`
	Key    string             `yaml:"key"`
	Files  []CertificateFiles `yaml:"files"`
	Export []Export           `yaml:"export"`
}

// Export is a copy of the certificate and key of one name for another program,
// with absolute paths.
type Export struct {
	Name    hostcheck.Name `yaml:"name"`
	Cert    string         `yaml:"cert"`  // leaf first, then the chain
	Key     string         `yaml:"key"`   // replaced before Cert
	Owner   string         `yaml:"owner"` // of both, as are the next two; "" = whoever writes them
	Group   string         `yaml:"group"` // "" = the owner's
	Mode    fs.FileMode    `yaml:"mode"`
	Then    string         `yaml:"then"`     // ThenNone, ThenSIGHUP, ThenRestart
	PIDFile string         `yaml:"pid_file"` // names the process that gets SIGHUP
	Unit    string         `yaml:"unit"`     // what systemctl restarts; "" = Command does
	Command []string       `yaml:"command"`  // restarts it where there is no systemd: a program by its path, and its arguments
}

// The values of then in certificate.export.
const (
	ThenNone    = "none"
	ThenSIGHUP  = "sighup"  // tell the daemon beside us
	ThenRestart = "restart" // restart it, once a day at most
)

// CertificateFiles are the PEM files, absolute paths, of one name.
type CertificateFiles struct {
	Name hostcheck.Name `yaml:"name"`
	Cert string         `yaml:"cert"` // leaf first, then the chain
	Key  string         `yaml:"key"`
}

// CertificateFiles lists the files of every name in the order of c.Names,
// whichever form the file used. It is empty unless certificate.source is files.
func (c *Config) CertificateFiles() []CertificateFiles {
	if c.Certificate.Source != SourceFiles {
		return nil
	}
	if len(c.Certificate.Files) == 0 {
		return []CertificateFiles{{Name: c.Names[0], Cert: c.Certificate.Cert, Key: c.Certificate.Key}}
	}
	files := make([]CertificateFiles, 0, len(c.Names))
	for _, name := range c.Names {
		for _, f := range c.Certificate.Files {
			if f.Name == name {
				files = append(files, f)
			}
		}
	}
	return files
}

// KE configures the NTS key exchange service (RFC 8915).
type KE struct {
	Listen          []netip.AddrPort `yaml:"listen"`
	Timeout         time.Duration    `yaml:"timeout"` // one absolute deadline per connection, TLS included
	MaxSessions     int              `yaml:"max_sessions"`
	MaxPoolSessions int              `yaml:"max_pool_sessions"`
	Cookies         int              `yaml:"cookies"`    // per exchange, 1 to 8
	AEADs           []uint16         `yaml:"aeads,auto"` // IANA numbers; nil = auto: what the daemon can open
	NTP             NTP              `yaml:"ntp"`
	Allow           []netip.Prefix   `yaml:"allow,auto"` // besides this host; nil = auto: whom the daemon serves, as far as that can be read
	Limits          Limits           `yaml:"limits"`
}

// NTP is the NTP server announced to clients. The zero value announces none:
// clients then use the address of the key exchange and port 123.
type NTP struct {
	Host string `yaml:"host"` // ASCII host name or IP address
	Port uint16 `yaml:"port"`
}

// Limits bound how often one address prefix may start a key exchange.
type Limits struct {
	PerPrefix Rate `yaml:"per_prefix"` // zero = no limit
	Burst     int  `yaml:"burst"`
	V4Prefix  int  `yaml:"v4_prefix"`
	V6Prefix  int  `yaml:"v6_prefix"`
}

// The values of daemon.kind that this version acts on.
const (
	KindAuto   = "auto" // what is found at the start: see WithKind
	KindChrony = "chrony"
	KindNTPsec = "ntpsec"
	KindNTPDRS = "ntpd-rs"
	// KindGateway is any NTP server without NTS: the agent speaks NTS in front.
	KindGateway = "gateway"
)

// The values of daemon.mode.
const (
	ModeAuto = "auto" // what suits the kind of daemon best
	// ModeCertificate leaves the key exchange to the daemon, with a certificate
	// that we export.
	ModeCertificate = "certificate"
)

// Daemon says which NTP daemon runs beside the agent and how it is reached.
type Daemon struct {
	Kind    string         `yaml:"kind"`
	Mode    string         `yaml:"mode"`
	Address netip.AddrPort `yaml:"address"` // where the daemon answers NTP
	Chrony  Chrony         `yaml:"chrony"`
	NTPsec  KeysFile       `yaml:"ntpsec"`
	NTPDRS  KeysFile       `yaml:"ntpd_rs"`
	Gateway Gateway        `yaml:"gateway"`
}

// Follows says whether the daemon makes its cookie keys itself, so that they are
// read and never written.
func (d *Daemon) Follows() bool { return d.Kind == KindNTPsec || d.Kind == KindNTPDRS }

// Leads says whether the daemon is chrony and takes its cookie keys from us.
func (d *Daemon) Leads() bool {
	return (d.Kind == KindAuto || d.Kind == KindChrony) && !d.ServesKE()
}

// WithKind is c beside a daemon of that kind, which is what auto has turned out
// to be. What the file says against it is an error, as if the kind stood there; the
// name stands for the file. c is not changed.
func (c *Config) WithKind(name, kind string) (*Config, error) {
	next := *c
	next.Daemon.Kind = kind
	d := &decoder{file: name}
	v := validator{d}
	v.follows(&next)
	v.gateway(&next)
	if err := d.errs.sorted(); err != nil {
		return nil, err
	}
	return &next, nil
}

// ServesKE says whether the daemon exchanges keys itself; then we do not.
func (d *Daemon) ServesKE() bool { return d.Mode == ModeCertificate }

// KE is where a daemon that exchanges keys itself does so, at the port of RFC 8915
// section 7.1; invalid if we do it.
func (d *Daemon) KE() netip.AddrPort {
	if !d.ServesKE() {
		return netip.AddrPort{}
	}
	return netip.AddrPortFrom(d.Address.Addr(), kePort)
}

// Chrony holds chronyd's paths.
type Chrony struct {
	KeysFile      string `yaml:"keys_file"`      // ntskeys in chronyd's ntsdumpdir
	CommandSocket string `yaml:"command_socket"` // chronyd's Unix command socket
	ConfigFile    string `yaml:"config_file"`    // "" = the distribution's place
	ParkedKEPort  uint16 `yaml:"parked_ke_port"`
}

// KeysFile is where a daemon we follow keeps its cookie keys.
type KeysFile struct {
	KeysFile string `yaml:"keys_file"`
}

// Gateway configures the UDP gateway for daemons without NTS.
type Gateway struct {
	Listen []netip.AddrPort `yaml:"listen"` // UDP; one port for all, or 0 for all
	Mode   string           `yaml:"mode"`   // ModeMirror, ModeRelay
	Plain  bool             `yaml:"plain"`  // answer NTP without NTS too
	Limits GatewayLimits    `yaml:"limits"`
}

// How the gateway knows the daemon's time.
const (
	ModeMirror = "mirror" // by the clock that the daemon disciplines; as with ModeRelay while that does not explain it
	ModeRelay  = "relay"  // by asking the daemon for each request
)

// GatewayLimits bound how often one network is answered: an IPv4 /24, an IPv6 /56.
type GatewayLimits struct {
	PerPrefix Rate `yaml:"per_prefix"` // zero = no limit
	Burst     int  `yaml:"burst"`      // datagrams at once
}

// Keys configures the rotation of cookie keys.
type Keys struct {
	RotateEvery time.Duration `yaml:"rotate_every,auto"` // 0 = auto: 7 days when leading chrony, a day behind the gateway; 0 when Daemon.Follows
	Keep        int           `yaml:"keep"`              // keys held, the current one among them; the gateway's alone
}

// Pool is one pool this server is a member of.
type Pool struct {
	Name       hostcheck.Name `yaml:"name"`
	Kind       string         `yaml:"kind"`
	Member     string         `yaml:"member"`
	TokensFile string         `yaml:"tokens_file"`
}

// Services configures the NTP TCP services.
type Services struct {
	Monitor Monitor `yaml:"monitor"`
	Control Control `yaml:"control"`
}

// Monitor is read-only monitoring over TLS.
type Monitor struct {
	Listen []netip.AddrPort `yaml:"listen"`
	Access string           `yaml:"access"`
}

// Control is authenticated control over TLS.
type Control struct {
	KeysFile string   `yaml:"keys_file"`
	Trusted  []uint32 `yaml:"trusted"`
}

// Observe says how the agent is looked at from outside.
type Observe struct {
	Socket     string        `yaml:"socket"`
	Metrics    string        `yaml:"metrics"`
	StatusPage string        `yaml:"status_page"`
	SelfCheck  time.Duration `yaml:"self_check"` // how often the daemon is asked to open a cookie
}

// Log says what is logged and how.
type Log struct {
	Level  string `yaml:"level"`  // trace, debug, info, warn, error
	Format string `yaml:"format"` // text, json
}

// Load reads and parses the file at path; "-" is the standard input. Every error it returns is an *Error
// or an Errors list of them.
func Load(path string) (*Config, error) {
	b, err := read(path)
	if path == "-" {
		path = "standard input"
	}
	if err != nil {
		return nil, unread(path, err)
	}
	return Parse(path, b)
}

// unread is the error of a file that cannot be read; it wraps the cause.
func unread(path string, err error) *Error {
	e := &Error{File: path, Problem: err.Error(), err: err}
	switch {
	case errors.Is(err, fs.ErrNotExist):
		e.Problem, e.Hint = "no such file", "write one with: ntsagent config example > "+path
	case errors.Is(err, fs.ErrPermission):
		e.Problem, e.Hint = "permission denied", "run as root or as the agent's user"
	}
	return e
}

// read returns the octets of a regular file of at most maxSize, or of the
// standard input, so that a configuration can be checked before it is a file.
func read(path string) ([]byte, error) {
	f := os.Stdin
	if path != "-" {
		info, err := os.Stat(path)
		if err == nil && !info.Mode().IsRegular() {
			err = errors.New("not a regular file")
		}
		if err != nil {
			return nil, err
		}
		if f, err = os.Open(path); err != nil {
			return nil, err
		}
		defer f.Close()
	}
	b, err := io.ReadAll(io.LimitReader(f, maxSize+1))
	if err == nil && len(b) > maxSize {
		err = errTooLarge()
	}
	return b, err
}

func errTooLarge() error { return fmt.Errorf("larger than %d KiB", maxSize>>10) }

// Parse turns the octets of a configuration file into a Config. The name stands
// for the file in error messages. It returns an *Error or an Errors list and
// never panics.
func Parse(name string, b []byte) (*Config, error) {
	if len(b) > maxSize {
		return nil, &Error{File: name, Problem: errTooLarge().Error()}
	}
	root, err := document(name, b)
	if err != nil {
		return nil, err
	}
	c := Default()
	d := decoder{file: name, lines: map[string]int{}}
	d.mapping(root, c, "")
	validate(c, &d)
	if err := d.errs.sorted(); err != nil {
		return nil, err
	}
	return c, nil
}
