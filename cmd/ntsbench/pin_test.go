package main

import (
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

func TestGeneratorAndServersGetCPUsOfTheirOwn(t *testing.T) {
	for name, tt := range map[string]struct {
		allowed []int
		want    cpus
	}{
		"none known": {nil, cpus{}}, "one": {[]int{3}, cpus{}},
		"two": {[]int{0, 1}, cpus{0, 1, true}}, "some of many": {[]int{2, 3, 6, 7}, cpus{2, 7, true}},
	} {
		got := choose(tt.allowed)
		if got != tt.want {
			t.Errorf("%s: %+v, want %+v", name, got, tt.want)
		}
		if again, err := parseCPUs(got.String()); err != nil || again != got {
			t.Errorf("%s: %+v comes back as %+v, %v", name, got, again, err)
		}
	}
	if c, err := parseCPUs("0;1"); err == nil {
		t.Errorf("%+v was read from nonsense", c)
	}
}

func TestMembersAreTheCPUsOfTheSet(t *testing.T) {
	var set unix.CPUSet
	for _, cpu := range []int{0, 5, 70} {
		set.Set(cpu)
	}
	got := members(&set)
	if len(got) != 3 || got[0] != 0 || got[1] != 5 || got[2] != 70 {
		t.Errorf("%v, want 0 5 70", got)
	}
}

func TestTooFewOpenFilesAreToldBeforeAnythingStarts(t *testing.T) {
	all := groups(5000)
	if err := enoughFiles(all, "--idle", 5000, 5000+spareFiles); err != nil {
		t.Error(err)
	}
	if err := enoughFiles(all, "--idle", 5000, 5000+spareFiles-1); err == nil || !strings.Contains(err.Error(), "hold fewer with --idle") {
		t.Errorf("5,000 connections with 5,255 files: %v", err)
	}
	if err := enoughFiles(selected(groups(5000), "all", words{"key exchange"}), "--idle", 5000, 1024); err != nil {
		t.Errorf("rows without idle connections: %v", err)
	}
}

func TestTheMachineIsNamed(t *testing.T) {
	cores, model := parseCPUInfo("processor\t: 0\nmodel name\t: Some CPU @ 2 GHz\n\nprocessor\t: 1\nmodel name\t: Some CPU @ 2 GHz\n")
	if cores != 2 || model != "Some CPU @ 2 GHz" {
		t.Errorf("%d, %q", cores, model)
	}
	if cores, model := parseCPUInfo("processor\t: 0\nBogoMIPS\t: 50\n"); cores != 1 || model != "model unknown" {
		t.Errorf("%d, %q", cores, model)
	}
}
