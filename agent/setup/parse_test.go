package setup

import (
	"bytes"
	"reflect"
	"strings"
	"testing"

	"ntsagent/packaging/parts"
)

const udpTable = `   sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode ref pointer drops
  512: 00000000:007B 00000000:0000 07 00000000:00000000 00:00000000 00000000     0        0 34211 2 0000000000000000 0
  712: 0100007F:0143 00000000:0000 07 00000000:00000000 00:00000000 00000000     0        0 34213 2 0000000000000000 0
`

const udp6Table = `  sl  local_address                         remote_address                        st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode ref pointer drops
  512: 00000000000000000000000001000000:007B 00000000000000000000000000000000:0000 07 00000000:00000000 00:00000000 00000000     0        0 34212 2 0000000000000000 0
`

func TestTheKernelsTablesOfSocketsAreRead(t *testing.T) {
	for table, want := range map[string][]string{
		udpTable:  {"0.0.0.0:123", "127.0.0.1:323"},
		udp6Table: {"[::1]:123"},
		"":        nil,
		"  1: 0100007F:007B 0:0 07 0 0 0 0 0 nonsense\n": nil,
		"  1: 0100007:007B 0:0 07 0 0 0 0 0 1\n":         nil,
		"  1: 0100007F:0007B 0:0 07 0 0 0 0 0 1\n":       nil,
	} {
		var got []string
		for _, s := range parseSockets([]byte(table)) {
			got = append(got, s.local.String())
		}
		if !reflect.DeepEqual(got, want) {
			t.Errorf("%q: %q, want %q", table, got, want)
		}
	}
	if s := parseSockets([]byte(udpTable)); s[0].inode != 34211 || s[0].state != 7 {
		t.Errorf("first row: %+v", s[0])
	}
}

func FuzzSockets(f *testing.F) {
	f.Add([]byte(udpTable))
	f.Add([]byte(udp6Table))
	f.Fuzz(func(t *testing.T, b []byte) {
		rows := bytes.Count(b, []byte("\n")) + 1
		got := parseSockets(b)
		if len(got) > rows {
			t.Errorf("%d sockets of %d lines", len(got), rows)
		}
		for _, s := range got {
			if !s.local.IsValid() {
				t.Errorf("no address: %+v", s)
			}
		}
	})
}

func TestWhatProcSaysOfAProcessIsRead(t *testing.T) {
	comm, parent, err := parseStat([]byte("812 (a) S (b)) S 17 812 812 0 -1 4194624"))
	if comm != "a) S (b)" || parent != 17 || err != nil {
		t.Errorf("stat: %q %d %v", comm, parent, err)
	}
	for _, bad := range []string{"", "812", "812 (x", ") 8 (", "812 (x) S", "812 (x) S y"} {
		if _, _, err := parseStat([]byte(bad)); err == nil {
			t.Errorf("stat %q is read", bad)
		}
	}
	if got, _, _ := parseStat([]byte("1 (\x1b[2J) S 1")); got != "?[2J" {
		t.Errorf("a name can steer the terminal: %q", got)
	}
	for text, want := range map[string]string{
		"0::/system.slice/chrony.service\n":                                                "chrony.service",
		"12:cpu:/x.service\n1:name=systemd:/system.slice/system-ntp.slice/ntp@a.service\n": "ntp@a.service",
		"0::/system.slice/ntpsec.service/sub\n":                                            "ntpsec.service",
		"0::/init.scope\n":                                                                 "", "": "", "0::/system.slice/a\x1b.service\n": "",
		"0::/user.slice/user-7.slice/user@7.service/app.slice/chrony.service\n":    "",
		"0::/user.slice/user-7.slice/user@7.service/system.slice/chrony.service\n": "",
		"0::/system.slice/docker-7.scope/system.slice/chrony.service\n":            "",
		"0::/system.slice/mine.service/chrony.service\n":                           "mine.service",
	} {
		if got := parseUnit([]byte(text)); got != want {
			t.Errorf("cgroup %q: %q, want %q", text, got, want)
		}
	}
	if got := parseCmdline([]byte("/usr/sbin/chronyd\x00-F\x001\x00")); !reflect.DeepEqual(got, []string{"/usr/sbin/chronyd", "-F", "1"}) {
		t.Errorf("cmdline: %q", got)
	}
}

func FuzzProcess(f *testing.F) {
	f.Add([]byte("812 (chronyd) S 1 812"), []byte("/usr/sbin/chronyd\x00-F\x001\x00"), []byte("0::/system.slice/chrony.service\n"), "socket:[12]")
	f.Fuzz(func(t *testing.T, stat, cmdline, cgroup []byte, link string) {
		if comm, _, err := parseStat(stat); err == nil && comm != printable(comm) {
			t.Errorf("name %q", comm)
		}
		if unit := parseUnit(cgroup); unit != "" && !strings.HasSuffix(unit, ".service") {
			t.Errorf("unit %q", unit)
		}
		p := process{argv: parseCmdline(cmdline), exe: link}
		p.in = invoked(p.argv, p.exe)
		if prog, ok := p.program(); ok {
			prog.configArg(p.in.args)
		}
		parseUser(cgroup)
		parseSocketLink(link)
	})
}

func TestProgramsAreToldByWhatTheyRun(t *testing.T) {
	for name, c := range map[string]struct {
		p            process
		kind         Kind
		config, path string
	}{
		"Debian's chronyd":             {process{argv: []string{"/usr/sbin/chronyd", "-F", "1"}, exe: "/usr/sbin/chronyd"}, Chrony, "", "/usr/sbin/chronyd"},
		"chronyd with a file":          {process{argv: []string{"chronyd", "-Uxdf/tmp/c.conf"}, exe: "/usr/sbin/chronyd"}, Chrony, "/tmp/c.conf", "/usr/sbin/chronyd"},
		"one that was upgraded":        {process{argv: []string{"chronyd"}, exe: "/usr/sbin/chronyd (deleted)"}, Chrony, "", "/usr/sbin/chronyd"},
		"Debian's NTPsec":              {process{argv: []string{"/usr/sbin/ntpd", "-p", "/run/ntpd.pid", "-c", "/etc/ntpsec/ntp.conf", "-g", "-N", "-u", "ntpsec:ntpsec"}, exe: "/usr/sbin/ntpd"}, NTPsec, "/etc/ntpsec/ntp.conf", "/usr/sbin/ntpd"},
		"the last of two files":        {process{argv: []string{"ntpd", "-c", "/a", "--configfile=/b"}, exe: "/usr/sbin/ntpd"}, NTPsec, "/b", "/usr/sbin/ntpd"},
		"ntp-daemon":                   {process{argv: []string{"ntp-daemon", "--config", "/x.toml"}, exe: "/usr/bin/ntp-daemon"}, NTPDRS, "/x.toml", "/usr/bin/ntp-daemon"},
		"one of ours, behind a loader": {process{argv: []string{"/r/ld-linux-x86-64.so.2", "--library-path", "/r/lib", "--argv0", "chronyd", "/r/chronyd", "-f", "/c"}, exe: "/r/ld-linux-x86-64.so.2"}, Chrony, "/c", "/r/chronyd"},
		"busybox as ntpd":              {process{argv: []string{"ntpd", "-l"}, exe: "/bin/busybox"}, Busybox, "", "/bin/busybox"},
		"one of which little is seen":  {process{comm: "systemd-timesyn"}, Timesyncd, "", ""},
	} {
		c.p.in = Host{Invoked: parts.Invoked}.invoked(c.p)
		prog, ok := c.p.program()
		if !ok || prog.kinds[0] != c.kind || prog.configArg(c.p.in.args) != c.config || c.p.in.path != c.path {
			t.Errorf("%s: %v %v %q %q", name, ok, prog.kinds, prog.configArg(c.p.in.args), c.p.in.path)
		}
	}
	for _, p := range []process{{argv: []string{"sh"}, exe: "/bin/busybox"}, {argv: []string{"chronyd"}, exe: "/bin/bash"}, {comm: "nginx"}, {exe: "/lib/ld-linux.so.2"}} {
		p.in = Host{Invoked: parts.Invoked}.invoked(p)
		if prog, ok := p.program(); ok {
			t.Errorf("%+v is taken for %s", p, prog.name)
		}
	}
}

func TestVersionsAreReadAsProgramsPrintThem(t *testing.T) {
	for out, want := range map[string]build{
		"chronyd (chrony) version 4.3 (+CMDMON +NTP +NTS +SECHASH)\n": {Chrony, "4.3", false},
		"chronyd (chrony) version 4.6.1 (+CMDMON -NTS)\n":             {Chrony, "4.6.1", true},
		"ntpd ntpsec-1.2.2\n":                     {NTPsec, "1.2.2", false},
		"ntpd 4.2.8p15@1.3728-o Wed Sep 23 UTC\n": {NTPD, "4.2.8p15", true},
		"ntp-daemon 1.4.0\n":                      {NTPDRS, "1.4.0", false},
		"ntpd: invalid option -- '-'\nusage: ntpd [-dnSsv] [-f file] [-p file]\n": {OpenNTPD, "", true},
		"": {}, "bash: no\n": {},
	} {
		if got := parseBuild(out); got != want {
			t.Errorf("%q: %+v", out, got)
		}
	}
	for v, want := range map[string]bool{"3.5": true, "4.0": false, "4.3": false, "": false, "3.99.1": true, "10.1": false, "4": false, "x": false} {
		if older(v, 4, 0) != want {
			t.Errorf("%q older than 4.0: %v", v, !want)
		}
	}
}

func FuzzBuild(f *testing.F) {
	f.Add("chronyd (chrony) version 4.3 (+CMDMON +NTP +NTS)\n")
	f.Add("ntpd 4.2.8p15@1.3728-o Wed\n")
	f.Fuzz(func(t *testing.T, out string) {
		if b := parseBuild(out); b.version != printable(b.version) || strings.Contains(b.version, " ") {
			t.Errorf("version %q", b.version)
		}
	})
}

func TestBlocksGoInAndOut(t *testing.T) {
	for name, c := range map[string]struct {
		conf  string
		after int
		want  string
	}{
		"at the end":            {"a\nb\n", 1 << 30, "a\nb\n" + blockBegin + "\nx\n" + blockEnd + "\n"},
		"behind a line":         {"a\nb\n", 1, "a\n" + blockBegin + "\nx\n" + blockEnd + "\nb\n"},
		"where no newline ends": {"a", 1 << 30, "a\n" + blockBegin + "\nx\n" + blockEnd + "\n"},
		"in an empty file":      {"", 1 << 30, blockBegin + "\nx\n" + blockEnd + "\n"},
	} {
		if got := string(insertBlock([]byte(c.conf), c.after, []string{"x"})); got != c.want {
			t.Errorf("%s: %q", name, got)
		}
	}
	for conf, line := range map[string]string{
		blockBegin + "\na\n": "line 1", "a\n" + blockEnd + "\n": "line 2", blockBegin + "\n" + blockBegin + "\n": "line 2",
	} {
		if _, err := removeBlocks([]byte(conf)); err == nil || !strings.Contains(err.Error(), line) {
			t.Errorf("%q: %v", conf, err)
		}
	}
}

func FuzzBlock(f *testing.F) {
	f.Add([]byte("a\nb\n"), 1)
	f.Add([]byte("a"), 0)
	f.Fuzz(func(t *testing.T, conf []byte, after int) {
		if hasBlock(conf) || after < 0 {
			return
		}
		got, err := removeBlocks(insertBlock(conf, after, []string{"x y"}))
		if err != nil {
			t.Fatal(err)
		}
		if len(conf) > 0 && conf[len(conf)-1] != '\n' && !bytes.Equal(got, conf) {
			got = bytes.TrimSuffix(got, []byte("\n")) // the newline that a last line needed
		}
		if !bytes.Equal(got, conf) {
			t.Errorf("%q became %q", conf, got)
		}
	})
}

func FuzzDiff(f *testing.F) {
	f.Add([]byte("a\nb\nc\n"), []byte("a\nc\nd"))
	f.Add([]byte(strings.Repeat("x\n", 20)), []byte(strings.Repeat("x\n", 9)+"y\n"+strings.Repeat("x\n", 11)))
	f.Fuzz(func(t *testing.T, a, b []byte) {
		var olds, news strings.Builder
		for _, e := range editsOf(splitLines(a), splitLines(b)) {
			if e.op != '+' {
				olds.WriteString(e.line)
			}
			if e.op != '-' {
				news.WriteString(e.line)
			}
		}
		if olds.String() != string(a) || news.String() != string(b) {
			t.Errorf("%q, %q became %q, %q", a, b, olds.String(), news.String())
		}
		if (unifiedDiff("a", "b", a, b) == "") != bytes.Equal(a, b) {
			t.Errorf("diff of %q and %q", a, b)
		}
	})
}

func TestAnNTPConfIsReadAsNTPsecDoes(t *testing.T) {
	for line, want := range map[string][]string{
		`nts cert "/etc/a b.pem" # mine`: {"nts", "cert", "/etc/a b.pem"},
		"# nts enable":                   nil,
		" restrict 127.0.0.1#x":          {"restrict", "127.0.0.1"},
		"":                               nil,
	} {
		if got := splitNTPConf(line); !reflect.DeepEqual(got, want) {
			t.Errorf("%q: %q", line, got)
		}
	}
	c := ntsOf([]directive{{"f", 1, []string{"nts", "key", "enable", "enable"}}, {"f", 2, []string{"nts", "disable"}}, {"f", 3, []string{"nts", "cert", "/c", "cookie", "/k"}}})
	if c.enabled || c.key != "enable" || c.cert != "/c" || c.cookie != "/k" || c.at.line != 3 {
		t.Errorf("%+v", c)
	}
}

func TestTOMLTablesAreFound(t *testing.T) {
	text := "a = 1 # [x]\n[ keyset ] # no\n\"key-storage-path\" = '/k' # p\nb = [\n [1],\n[2]\n# ]\n]\ns = '''\n[not]\n'''\nt = \"[a\"\n[[server]]\nlisten = \"[::]:123\"\n"
	tables := parseTOML([]byte(text))
	if len(tables) != 3 || tables[1].name != "keyset" || tables[1].line != 2 || tables[1].array ||
		tomlString(tables[1].keys["key-storage-path"]) != "/k" || tables[2].name != "server" || !tables[2].array ||
		tomlString(tables[2].keys["listen"]) != "[::]:123" {
		t.Errorf("%+v", tables)
	}
}

func FuzzConf(f *testing.F) {
	f.Add("[a]\nb = [\n[1]\n]\n[[c]]\n")
	f.Add("nts cert \"x y\" # z\n")
	f.Fuzz(func(t *testing.T, text string) {
		last := 0
		for _, tb := range parseTOML([]byte(text)) {
			if tb.line < last {
				t.Errorf("lines go back: %d, %d", last, tb.line)
			}
			last = tb.line
			for _, v := range tb.keys {
				tomlString(v)
			}
		}
		for line := range strings.Lines(text) {
			if words := splitNTPConf(line); len(words) > 0 {
				ntsOf([]directive{{"f", 1, append([]string{"nts"}, words...)}})
			}
			if words := chronyGrammar().split(line); len(words) > 0 {
				words[0] = "allow"
				c := chronyConf{rules: rulesOf(directive{"f", 1, words})}
				c.servesAnybody()
			}
		}
	})
}

func FuzzRecord(f *testing.F) {
	f.Add(record{Version: recordVersion, Unit: "chrony.service", Files: []entry{{Path: "/etc/a", After: checksum([]byte("x"))}}}.bytes())
	f.Add([]byte(`{"version":1,"files":[{"path":"../x"}]}`))
	f.Add([]byte(`{"version":1,"files":null,"restart":[["systemctl","restart","ntpd.service"]]}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		r, err := parseRecord(b)
		if err != nil {
			return
		}
		again, err := parseRecord(r.bytes())
		if err != nil || !reflect.DeepEqual(r, again) {
			t.Errorf("%+v became %+v, %v", r, again, err)
		}
	})
}
