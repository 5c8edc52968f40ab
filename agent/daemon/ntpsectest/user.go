package ntpsectest

import (
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
)

// ownDir is the folder of what ntpd itself writes. One of another user is made
// for that user alone.
func (s *Server) ownDir() string {
	s.t.Helper()
	if s.options.User == "" {
		return s.Dir
	}
	u, err := user.Lookup(s.options.User)
	if err != nil {
		s.t.Fatal(err)
	}
	uid, _ := strconv.Atoi(u.Uid)
	gid, _ := strconv.Atoi(u.Gid)
	dir := filepath.Join(s.Dir, "own")
	if err := os.Mkdir(dir, 0o700); err != nil {
		s.t.Fatal(err)
	}
	if err := os.Chown(dir, uid, gid); err != nil {
		s.t.Fatal(err)
	}
	for d := s.Dir; d != os.TempDir() && d != "/"; d = filepath.Dir(d) { // the way there is open
		if err := os.Chmod(d, 0o755); err != nil {
			s.t.Fatal(err)
		}
	}
	s.PIDFile = filepath.Join(dir, "ntpd.pid")
	return dir
}

// asUser has cmd run as the user of the options, who is root in a user namespace:
// ntpd insists on root, and there it has no right to the host's clock. The user
// need not reach the program's path: it is mounted where it can.
func (s *Server) asUser(cmd *exec.Cmd) *exec.Cmd {
	if cmd.Err != nil {
		return cmd
	}
	root := filepath.Join(s.Dir, "root")
	if err := os.MkdirAll(root, 0o755); err != nil {
		cmd.Err = err
		return cmd
	}
	const script = `mount --bind "$1" "$2" && echo 0 >/proc/sys/net/ipv4/ip_unprivileged_port_start && u=$3 && shift 3 &&
exec setpriv --reuid="$u" --regid="$(id -g "$u")" --clear-groups --bounding-set=-sys_time unshare --user --map-root-user "$@"`
	args := []string{"unshare", "--mount", "sh", "-c", script, "sh", string(s.root), root, s.options.User}
	for _, a := range append([]string{cmd.Path}, cmd.Args[1:]...) {
		args = append(args, strings.ReplaceAll(a, string(s.root), root))
	}
	cmd.Path, cmd.Err = exec.LookPath("unshare")
	cmd.Args = args
	return cmd
}
