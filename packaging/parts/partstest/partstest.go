// Package partstest gives tests the programs of package parts.
package partstest

import (
	"context"
	"os"
	"testing"

	"ntsagent/packaging/parts"
)

// Chrony returns the release's unpacked chrony, unpacking it on first use. A
// test that needs chrony and cannot have it fails; it is never skipped.
func Chrony(t testing.TB, r parts.Release) parts.Root {
	t.Helper()
	return unpacked(t, r, parts.UnpackChrony)
}

// NTPsec is Chrony for NTPsec.
func NTPsec(t testing.TB, r parts.Release) parts.Root {
	t.Helper()
	return unpacked(t, r, parts.UnpackNTPsec)
}

// NTPDRS is Chrony for ntpd-rs.
func NTPDRS(t testing.TB, r parts.Release) parts.Root {
	t.Helper()
	return unpacked(t, r, parts.UnpackNTPDRS)
}

// OpenNTPD is Chrony for OpenNTPD.
func OpenNTPD(t testing.TB, r parts.Release) parts.Root {
	t.Helper()
	return unpacked(t, r, parts.UnpackOpenNTPD)
}

// NFTables is Chrony for nft.
func NFTables(t testing.TB, r parts.Release) parts.Root {
	t.Helper()
	return unpacked(t, r, parts.UnpackNFTables)
}

// Nginx is Chrony for nginx.
func Nginx(t testing.TB, r parts.Release) parts.Root {
	t.Helper()
	return unpacked(t, r, parts.UnpackNginx)
}

// HAProxy is Chrony for haproxy.
func HAProxy(t testing.TB, r parts.Release) parts.Root {
	t.Helper()
	return unpacked(t, r, parts.UnpackHAProxy)
}

// Systemd is Chrony for the programs of systemd.
func Systemd(t testing.TB, r parts.Release) parts.Root {
	t.Helper()
	return unpacked(t, r, parts.UnpackSystemd)
}

// Knot is Chrony for the DNS server knotd.
func Knot(t testing.TB, r parts.Release) parts.Root {
	t.Helper()
	return unpacked(t, r, parts.UnpackKnot)
}

func unpacked(t testing.TB, r parts.Release, unpack func(context.Context, string, parts.Release) (parts.Root, error)) parts.Root {
	t.Helper()
	wd, err := os.Getwd()
	if err != nil {
		t.Fatalf("find the repository: %v", err)
	}
	repo, err := parts.RepoDir(wd)
	if err != nil {
		t.Fatal(err)
	}
	root, err := unpack(t.Context(), repo, r)
	if err != nil {
		t.Fatal(err)
	}
	return root
}
