package feed

import (
	"os/user"
	"strconv"
	"testing"

	"ntsagent/agent/config"
)

func TestTheHelpersGroupIsItsUsersAndNotTheFolders(t *testing.T) {
	u, err := user.Lookup("nobody")
	if err != nil {
		t.Fatal(err)
	}
	uid, _ := strconv.ParseUint(u.Uid, 10, 32)
	gid, _ := strconv.ParseUint(u.Gid, 10, 32)
	if got := groupOf(uint32(uid), 0); got != uint32(gid) || got == 0 {
		t.Errorf("in a folder of nobody:root the helper has group %d, want nobody's, %d", got, gid)
	}
	if got := groupOf(4294967290, 77); got != 77 {
		t.Errorf("a user without an entry has group %d, want the folder's", got)
	}
}

func TestAGroupThatIsNotThereIsNamedOnce(t *testing.T) {
	o := CertificateOptions{Export: config.Export{Group: "no-such-group"}}
	const want = "feed certificate: certificate.export: group: unknown group no-such-group; fix: name a group that is there"
	if _, err := o.owner(); err == nil || err.Error() != want {
		t.Errorf("got %v, want %s", err, want)
	}
}
