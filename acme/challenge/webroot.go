package challenge

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"

	"golang.org/x/sys/unix"

	"ntsagent/acme/disk"
)

// Webroot shows HTTP-01 proofs as files in a folder that a web server serves as /.well-known/acme-challenge/. Nobody but
// root and we may write to the folder. A token is the CA's word and a file name here: only base64url ever becomes one.
type Webroot string

// proofMode lets any web server read a proof; it is for the whole world.
const proofMode = 0o644

// minToken is the shortest token with the 128 bits that RFC 8555 section 8.1 wants.
const minToken = 22

// maxProof is more octets than any key authorization has.
const maxProof = 512

// Present shows keyAuth at token until remove is called. A file of that name that is no older copy of this very proof is
// an error, and stays.
func (w Webroot) Present(token, keyAuth string) (remove func() error, err error) {
	switch {
	case !isToken(token):
		return nil, errors.New("present http-01: the token is not 1 to 128 characters of base64url")
	case !isKeyAuth(keyAuth, token):
		return nil, errors.New("present http-01: the key authorization is not the token and a thumbprint")
	}
	dir, err := disk.OpenTrusted(string(w))
	if err != nil {
		return nil, fmt.Errorf("acme.http01.webroot: %w", err)
	}
	if leftover(dir, token) {
		_ = dir.Remove(token) // or making it fails
	}
	if err := create(dir, token, keyAuth); err != nil {
		return nil, errors.Join(fmt.Errorf("write proof to acme.http01.webroot %s: %w", w, err), dir.Close())
	}
	return func() error {
		defer dir.Close() // it was read from at most
		if err := dir.Remove(token); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("remove proof from acme.http01.webroot %s: %w", w, err)
		}
		return nil
	}, nil
}

// create makes the file whole or not at all.
func create(dir *os.Root, token, keyAuth string) error {
	f, err := dir.OpenFile(token, os.O_WRONLY|os.O_CREATE|os.O_EXCL|unix.O_NOFOLLOW, proofMode)
	if err != nil {
		return err
	}
	_, err = f.WriteString(keyAuth)
	if err == nil {
		err = f.Chmod(proofMode) // whatever the umask
	}
	if err = errors.Join(err, f.Close()); err != nil {
		return errors.Join(err, dir.Remove(token))
	}
	return nil
}

// Sweep removes the proofs that an agent left behind which was killed, and nothing else. It must not run beside an order.
func (w Webroot) Sweep() error {
	dir, err := disk.OpenTrusted(string(w))
	if err != nil {
		return fmt.Errorf("acme.http01.webroot: %w", err)
	}
	defer dir.Close() // it was read from at most
	f, err := dir.Open(".")
	if err != nil {
		return fmt.Errorf("sweep acme.http01.webroot: %w", err)
	}
	defer f.Close()
	names, err := f.Readdirnames(-1)
	for _, name := range names {
		if leftover(dir, name) {
			err = errors.Join(err, dir.Remove(name))
		}
	}
	if err != nil {
		return fmt.Errorf("sweep acme.http01.webroot %s: %w", w, err)
	}
	return nil
}

// leftover says whether the file called name is a proof, or what was to become one.
func leftover(dir *os.Root, name string) bool {
	if !isToken(name) {
		return false
	}
	info, err := dir.Lstat(name)
	if err != nil || !info.Mode().IsRegular() || info.Size() > maxProof {
		return false
	}
	f, err := dir.OpenFile(name, os.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0)
	if err != nil {
		return false
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, maxProof))
	begun := len(b) == 0 && len(name) >= minToken // and the agent was killed
	return err == nil && (begun || isKeyAuth(string(b), name))
}
