package feed

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/user"
	"strconv"

	"golang.org/x/sys/unix"

	"ntsagent/agent/daemon"
)

// checkSymmetricKeys refuses when REKEY would do harm. REKEY also makes chronyd
// forget its symmetric keys and read `keyfile` again, now as the user it dropped
// to, who is us. If that user cannot read it, every symmetric key is gone.
func checkSymmetricKeys(conf string) error {
	c, err := daemon.ReadChrony(conf)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil // then chronyd has none of it either, or was told of another file that we cannot know
	case err != nil:
		return &Failure{What: "REKEY not sent", Kind: ErrSymmetricKeys, Err: err,
			Fix: fmt.Sprintf("make the configuration readable for %s, so that its keyfile can be checked", userName())}
	case c.KeyFile == "":
		return nil
	}
	f, err := os.OpenFile(c.KeyFile, os.O_RDONLY|unix.O_NONBLOCK|unix.O_NOCTTY, 0)
	if err == nil {
		return f.Close()
	}
	if errors.Is(err, fs.ErrNotExist) {
		return nil // nothing to lose
	}
	return &Failure{What: "REKEY not sent", Kind: ErrSymmetricKeys, Err: err,
		Fix: fmt.Sprintf("chown root:%s %s; chmod 0640 %s", groupName(), c.KeyFile, c.KeyFile)}
}

// userName names the user we run as, which is chronyd's.
func userName() string {
	uid := strconv.Itoa(os.Geteuid())
	if u, err := user.LookupId(uid); err == nil {
		return u.Username
	}
	return "user " + uid
}

func groupName() string {
	gid := strconv.Itoa(os.Getegid())
	if g, err := user.LookupGroupId(gid); err == nil {
		return g.Name
	}
	return gid
}
