package daemon

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"ntsagent/ntske/keyring"
)

// Help is what keyring tells an operator about the chronyd t. Where chrony.conf
// could be read it names the line to change.
func Help(t Target) keyring.Help {
	if t.ConfErr != nil {
		return t.generalHelp()
	}
	unseen, keys, nts := t.unseenFaults(), t.keyFaults(), t.ntsFaults()
	refused := keys
	if len(t.notSetUp()) > 0 {
		refused = append(slices.Clone(nts), keys...)
	}
	return keyring.Help{
		Unseen: orElse(unseen, fmt.Sprintf("chronyd does not answer %s: see that it runs, that its `allow` lines allow %s, and that daemon.address is right",
			t.Addr, t.Addr.Addr())),
		Refused: orElse(refused, fmt.Sprintf("chronyd cannot open our cookies, though %s is as it must be: restart chronyd if it is older than that, "+
			"and see that its user can read %s", t.ConfigFile, t.KeysFile)),
		NoNTS: orElse(append(nts, keys...), fmt.Sprintf("chronyd answers plain NTP but nothing with NTS, though %s is as it must be: "+
			"restart chronyd if it is older than that", t.ConfigFile)),
	}
}

// Faults are all that chrony.conf, if it could be read, must have otherwise for
// chronyd to open our cookies: what is wrong, and what to do about it.
func (t Target) Faults() []string {
	if t.ConfErr != nil {
		return nil
	}
	return append(append(t.unseenFaults(), t.ntsFaults()...), t.keyFaults()...)
}

func orElse(faults []string, general string) string {
	if len(faults) == 0 {
		return general
	}
	return strings.Join(faults, "; ")
}

func (t Target) generalHelp() keyring.Help {
	return keyring.Help{
		Unseen: fmt.Sprintf("chronyd does not answer %s: add `allow %s` to chrony.conf or set daemon.address", t.Addr, t.Addr.Addr()),
		Refused: "chronyd cannot open our cookies: it has not loaded our key file; see `ntsrotate 0` and `ntsdumpdir` in chrony.conf, " +
			"and that its user can read the file",
		NoNTS: "chronyd answers plain NTP but nothing with NTS: add ntsserverkey, ntsservercert and `ntsrotate 0` to chrony.conf and restart it",
	}
}

// unseenFaults are why chronyd would answer us nothing at all.
func (t Target) unseenFaults() []string {
	c, from := t.Conf, t.Addr.Addr()
	bound, line := c.BindAddress4, lineBind4
	if from.Is6() {
		bound, line = c.BindAddress6, lineBind6
	}
	at, err := c.Address()
	switch {
	case err != nil:
		return []string{fmt.Sprintf("chronyd serves no NTP: remove %s and restart chronyd", c.said("port"))}
	case c.Port != t.Addr.Port():
		return []string{fmt.Sprintf("chronyd answers at port %d, by %s, not at %s: set daemon.address to %s", c.Port, c.said("port"), t.Addr, at)}
	case bound.IsValid() && !bound.IsUnspecified() && bound != from:
		return []string{fmt.Sprintf("chronyd answers at %s alone, by %s, not at %s: set daemon.address to %s", bound, c.said(line), t.Addr, at)}
	case !c.Allows:
		return []string{fmt.Sprintf("chronyd answers nobody: add `allow %s`, and whom you serve, to %s and restart chronyd", from, t.ConfigFile)}
	}
	return nil
}

// notSetUp are the lines that chrony.conf lacks where nothing of ours is in it, as
// after `daemon revert`; nil = it has the pair or lacks nothing else.
func (t Target) notSetUp() []string {
	lines := []string{"`ntsserverkey`", "`ntsservercert`"}
	if t.Conf.NTSRotate != 0 {
		lines = append(lines, "`ntsrotate 0`")
	}
	if t.Conf.NTSDumpDir == "" {
		lines = append(lines, "`ntsdumpdir`")
	}
	if t.Conf.NTSServerKey != "" || t.Conf.NTSServerCert != "" || len(lines) == 2 {
		return nil
	}
	return lines
}

// ntsFaults are why chronyd would have no NTS.
func (t Target) ntsFaults() []string {
	if lines := t.notSetUp(); lines != nil {
		return []string{fmt.Sprintf("chronyd is not set up for the agent, %s lacks %s: ntsagent daemon apply, then restart chronyd", t.ConfigFile, strings.Join(lines, ", "))}
	}
	var missing []string
	if t.Conf.NTSServerKey == "" {
		missing = append(missing, "`ntsserverkey FILE`")
	}
	if t.Conf.NTSServerCert == "" {
		missing = append(missing, "`ntsservercert FILE`")
	}
	if len(missing) == 0 {
		return nil
	}
	return []string{fmt.Sprintf("chronyd has no NTS: add %s to %s, any pair will do, and restart chronyd", strings.Join(missing, " and "), t.ConfigFile)}
}

// keyFaults are why chronyd would not have our keys, but for what ntsFaults tells.
func (t Target) keyFaults() []string {
	var out []string
	add := func(format string, args ...any) { out = append(out, fmt.Sprintf(format, args...)) }
	c, told := t.Conf, t.notSetUp() != nil
	if c.NTSRotate != 0 && !told {
		add("chronyd makes keys of its own, by %s: let %s say `ntsrotate 0` and restart chronyd", c.said("ntsrotate"), t.ConfigFile)
	}
	dir, base := filepath.Split(t.KeysFile)
	switch {
	case base != keysName:
		add("chronyd takes keys from a file named %s alone: daemon.chrony.keys_file must end in that, not in %s", keysName, base)
	case c.NTSDumpDir == "" && told:
	case c.NTSDumpDir == "":
		add("chronyd reads no key file: add `ntsdumpdir %s` to %s and restart chronyd", filepath.Clean(dir), t.ConfigFile)
	case !sameDir(c.NTSDumpDir, dir):
		add("chronyd reads its keys elsewhere, by %s: set daemon.chrony.keys_file to %s", c.said("ntsdumpdir"), filepath.Join(c.NTSDumpDir, keysName))
	}
	switch socket := t.CommandSocket; {
	case c.CommandSocket == "":
		add("chronyd takes no commands, by %s: remove that line and restart chronyd", c.said("bindcmdaddress"))
	case filepath.Base(c.CommandSocket) != filepath.Base(socket) || !sameDir(filepath.Dir(c.CommandSocket), filepath.Dir(socket)):
		add("chronyd takes commands at %s, not at %s: set daemon.chrony.command_socket", c.CommandSocket, socket)
	}
	return out
}

// sameDir is true where two paths name one folder, by links or not.
func sameDir(a, b string) bool {
	if filepath.Clean(a) == filepath.Clean(b) {
		return true
	}
	ai, aErr := os.Stat(a)
	bi, bErr := os.Stat(b)
	return aErr == nil && bErr == nil && os.SameFile(ai, bi)
}
