package issuer

import (
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"strings"
	"time"

	"ntsagent/acme"
)

// maxLife is longer than any CA's certificates live that does not want to be asked again and again. One that lives longer would
// have a key in use that nobody ever changes.
const maxLife = 10 * 366 * 24 * time.Hour

const hintUnfit = "the certificate in use stays; ask the CA, or choose another acme.directory"

// fit looks at what package live cannot know to be wrong, for whoever renews files may have reasons of his own. What it cannot
// read is left to live.
func (j *job) fit(chain []byte) error {
	block, _ := pem.Decode(chain)
	if block == nil {
		return nil
	}
	leaf, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		return nil
	}
	if life := leaf.NotAfter.Sub(leaf.NotBefore); life > maxLife {
		return fmt.Errorf("it is valid until %s, longer than ten years", leaf.NotAfter.UTC().Format(time.DateOnly))
	}
	if err := acme.Complete(chain, j.issuer.Roots(), time.Now()); err != nil {
		return err
	}
	if more := len(leaf.DNSNames) + len(leaf.IPAddresses) + len(leaf.EmailAddresses) + len(leaf.URIs); more > 1 {
		// Some CAs add names of their own, which hurts nobody: the key is ours.
		j.issuer.cfg.Log.Warn("the certificate has names that were not ordered", "name", j.order.Name.String(),
			"names", fmt.Sprintf("%+.200q", strings.Join(leaf.DNSNames[:min(len(leaf.DNSNames), 5)], " ")))
	}
	return nil
}
