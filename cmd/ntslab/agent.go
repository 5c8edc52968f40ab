package main

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// agentConfig is what the lab writes into the agent's configuration file.
type agentConfig struct {
	name       string
	directory  string // ACME
	acmeCA     string // path
	challenges []string
	ke         []string // addresses to listen on; port 0 = the agent chooses
	http01     []string
	tlsALPN01  []string
	daemon     string // the section of that name, as YAML
	resolver   string // address of the lab's DNS
	stateDir   string
	socket     string
}

// text is the YAML, with every value quoted as JSON, which YAML includes.
func (c agentConfig) text() string {
	q := quoted
	return fmt.Sprintf(`# written by ntslab; every key that is not here has its default
names: %s
acme:
  directory: %s
  ca_file: %s
  email: ops@alice.example
  agree_to_terms: true
  challenges: %s
  http01: {listen: %s}
  tls_alpn01: {listen: %s}
  resolvers: [%s]
ke:
  listen: %s
%sobserve: {socket: %s}
state_dir: %s
`, q([]string{c.name}), q(c.directory), q(c.acmeCA), q(c.challenges), q(c.http01), q(c.tlsALPN01), q(c.resolver), q(c.ke), c.daemon,
		q(c.socket), q(c.stateDir))
}

// findAgent returns the absolute path of the ntsagent to run.
func findAgent(path string) (string, error) {
	if path == "" {
		self, err := os.Executable()
		if err != nil {
			return "", fmt.Errorf("find ntsagent: %w", err)
		}
		path = filepath.Join(filepath.Dir(self), "ntsagent")
	}
	if !strings.Contains(path, "/") {
		path = "./" + path
	}
	found, err := exec.LookPath(path)
	if err != nil {
		return "", fmt.Errorf("find ntsagent: %w; run `make build`, or name it with --agent", err)
	}
	return filepath.Abs(found)
}
