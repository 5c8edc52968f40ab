package parts

import (
	"compress/gzip"
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
)

// UnpackChrony returns the release's chrony of the repository at repoDir. The
// first call downloads it from the mirror the system's apt uses (about 10 s);
// processes that call it at the same time wait for one download.
func UnpackChrony(ctx context.Context, repoDir string, r Release) (Root, error) {
	// "chronyd (chrony) version 4.3 (+CMDMON +NTP …)"
	return unpackDaemon(ctx, repoDir, r, "chrony", r.Chrony, says("chronyd", "chronyd (chrony) version "))
}

// UnpackNTPsec is UnpackChrony for NTPsec, whose daemon is called ntpd.
func UnpackNTPsec(ctx context.Context, repoDir string, r Release) (Root, error) {
	// "ntpd ntpsec-1.2.2"
	return unpackDaemon(ctx, repoDir, r, "ntpsec", r.NTPsec, says("ntpd", "ntpd ntpsec-"))
}

// UnpackNTPDRS is UnpackChrony for ntpd-rs, whose daemon is called ntp-daemon.
func UnpackNTPDRS(ctx context.Context, repoDir string, r Release) (Root, error) {
	// "ntp-daemon 1.4.0"
	return unpackDaemon(ctx, repoDir, r, "ntpd-rs", r.NTPDRS, says("ntp-daemon", "ntp-daemon "))
}

// UnpackOpenNTPD is UnpackChrony for OpenNTPD, whose daemon is called ntpd and
// does not tell its version: the package's changelog does.
func UnpackOpenNTPD(ctx context.Context, repoDir string, r Release) (Root, error) {
	return unpackDaemon(ctx, repoDir, r, "openntpd", r.OpenNTPD, func(_ context.Context, root Root) (string, error) {
		return root.upstream("openntpd")
	})
}

// UnpackNFTables is UnpackChrony for nft, of any version.
func UnpackNFTables(ctx context.Context, repoDir string, r Release) (Root, error) {
	return unpack(ctx, filepath.Join(repoDir, ".parts"), r, "nftables")
}

// UnpackNginx is UnpackChrony for nginx with its module for streams, of any version.
func UnpackNginx(ctx context.Context, repoDir string, r Release) (Root, error) {
	return unpack(ctx, filepath.Join(repoDir, ".parts"), r, "libnginx-mod-stream")
}

// UnpackHAProxy is UnpackChrony for haproxy, of any version.
func UnpackHAProxy(ctx context.Context, repoDir string, r Release) (Root, error) {
	return unpack(ctx, filepath.Join(repoDir, ".parts"), r, "haproxy")
}

// UnpackKnot is UnpackChrony for the DNS server knotd, of any version.
func UnpackKnot(ctx context.Context, repoDir string, r Release) (Root, error) {
	return unpack(ctx, filepath.Join(repoDir, ".parts"), r, "knot")
}

// UnpackSystemd is UnpackChrony for the programs of systemd, of any version.
// None of them needs a systemd that runs.
func UnpackSystemd(ctx context.Context, repoDir string, r Release) (Root, error) {
	return unpack(ctx, filepath.Join(repoDir, ".parts"), r, "systemd")
}

// unpackDaemon unpacks pkg and holds its upstream version against want.
func unpackDaemon(ctx context.Context, repoDir string, r Release, pkg, want string, version func(context.Context, Root) (string, error)) (Root, error) {
	if want == "" {
		return "", fmt.Errorf("unpack %s: it is not used from Debian %d", pkg, r.Debian)
	}
	root, err := unpack(ctx, filepath.Join(repoDir, ".parts"), r, pkg)
	if err != nil {
		return "", err
	}
	got, err := version(ctx, root)
	if err != nil {
		return "", fmt.Errorf("ask the unpacked %s of %s for its version: %w", pkg, root, err)
	}
	if got != want {
		return "", fmt.Errorf("%s holds %s %q, not %s: remove it, and have apt sources that serve Debian %d",
			root, pkg, got, want, r.Debian)
	}
	return root, nil
}

// says returns the func that reads the version a program prints after prefix.
func says(program, prefix string) func(context.Context, Root) (string, error) {
	return func(ctx context.Context, root Root) (string, error) {
		out, err := root.Command(ctx, program, "--version").CombinedOutput() // ntp-daemon prints it on standard error
		if err != nil {
			return "", err
		}
		after, _ := strings.CutPrefix(string(out), prefix)
		version, _, _ := strings.Cut(strings.TrimSpace(after), " ")
		return version, nil
	}
}

// upstream reads the upstream version from the changelog of a package:
// "openntpd (1:6.2p3-4.2) unstable; urgency=medium".
func (r Root) upstream(pkg string) (string, error) {
	f, err := os.Open(filepath.Join(string(r), "usr/share/doc", pkg, "changelog.Debian.gz"))
	if err != nil {
		return "", err
	}
	defer f.Close()
	z, err := gzip.NewReader(f)
	if err != nil {
		return "", err
	}
	var head [256]byte
	n, err := io.ReadFull(z, head[:])
	if err != nil && err != io.ErrUnexpectedEOF {
		return "", err
	}
	_, version, _ := strings.Cut(string(head[:n]), "(")
	version, _, _ = strings.Cut(version, ")")
	if _, after, ok := strings.Cut(version, ":"); ok {
		version = after
	}
	if i := strings.LastIndexByte(version, '-'); i >= 0 {
		version = version[:i]
	}
	return version, nil
}
