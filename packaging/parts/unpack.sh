#!/bin/sh
# usage: unpack.sh PARTS SUITE PACKAGE...
#
# Unpacks each package of a Debian suite, with everything it depends on, into a
# root of its own at PARTS/SUITE/PACKAGE, to be run through that root's own loader.
# Needs no root, installs nothing, writes nowhere but PARTS. The mirror, its
# proxy and its credentials are the ones the system's own apt uses.
#
# A root appears by rename when it is complete, so a half-finished one is never
# used. Calls at the same time wait for each other.
set -eu

keyring=/usr/share/keyrings/debian-archive-keyring.gpg

die() { echo "unpack.sh: $*" >&2; exit 1; }

[ $# -ge 3 ] || die "usage: unpack.sh PARTS SUITE PACKAGE..."
for tool in apt-get apt-config dpkg-deb flock tar; do
	command -v "$tool" >/dev/null || die "$tool is missing: this needs a Debian 12 (or one with its apt, dpkg and util-linux)"
done
[ -r "$keyring" ] || die "$keyring is missing: install debian-archive-keyring"

mkdir -p "$1"
parts=$(cd "$1" && pwd)
suite=$2
shift 2
exec 9>"$parts/lock"
flock 9

missing=
for p; do
	case $p in '' | -* | *[!a-z0-9.+-]*) die "not a package name: $p" ;; esac
	[ -d "$parts/$suite/$p" ] || missing="$missing $p"
done
[ -n "$missing" ] || exit 0

# What an earlier call left behind when it was killed; we hold the lock.
work=$parts/work
rm -rf "$work"
mkdir -p "$work/state/lists/partial" "$work/archives" "$parts/archives/partial" "$parts/$suite"
trap 'rm -rf "$work"' EXIT
trap 'exit 1' HUP INT TERM
: >"$work/status"

# The system's mirrors: the main archive, and the security archive if it has one.
sites=$(apt-get indextargets --format '$(SITE)' 'Created-By: Packages' | sed 's,/*$,,' | sort -u)
main=$(echo "$sites" | grep -m1 '/debian$') || die "the system's apt sources name no Debian mirror"
echo "deb [signed-by=$keyring] $main $suite main" >"$work/list"
if security=$(echo "$sites" | grep -m1 '/debian-security$'); then
	echo "deb [signed-by=$keyring] $security $suite-security main" >>"$work/list"
fi

# Only the Acquire part of the system's settings (proxies): its hooks must not run.
{
	apt-config dump | grep '^Acquire::' || :
	cat <<-C
		Dir::Etc::parts "/dev/null"; Dir::Etc::main "/dev/null"; Dir::Etc::preferencesparts "/dev/null";
		Dir::Etc::sourcelist "$work/list"; Dir::Etc::sourceparts "/dev/null";
		Dir::State "$work/state"; Dir::State::status "$work/status"; Dir::Log "$work";
		Dir::Cache "$work"; Dir::Cache::archives "$parts/archives";
		APT::Sandbox::User ""; APT::Install-Recommends "false"; Acquire::Languages "none"; Acquire::Retries "3";
	C
} >"$work/conf"
export APT_CONFIG="$work/conf" LC_ALL=C

quietly() { "$@" >"$work/log" 2>&1 || { tail -n 5 "$work/log" >&2; die "$* failed"; }; }

quietly apt-get -q update
for p in $missing; do
	quietly apt-get -q -y -d install "$p"
	apt-get -q -s install "$p" | sed -n 's/^Inst \([^ ]*\) (\([^ ]*\) [^)]*\[\([^]]*\)\]).*/\1 \2 \3/p' >"$work/closure"
	[ -s "$work/closure" ] || die "apt names no package to install for $p"
	root=$work/root
	mkdir -p "$root/usr"
	for l in bin sbin lib lib64; do
		mkdir "$root/usr/$l"
		ln -s "usr/$l" "$root/$l"
	done
	while read -r name version arch; do
		deb=$parts/archives/${name}_$(echo "$version" | sed 's/:/%3a/')_$arch.deb
		[ -f "$deb" ] || die "apt did not leave $deb"
		dpkg-deb --fsys-tarfile "$deb" >"$work/tar"
		tar -x --keep-directory-symlink --no-same-owner --no-same-permissions -C "$root" -f "$work/tar" || die "cannot unpack $deb"
	done <"$work/closure"
	mv "$root" "$parts/$suite/$p"
done
rm -rf "$parts/archives"
