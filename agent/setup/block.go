package setup

import (
	"bytes"
	"fmt"
	"strings"
)

// The lines around what we put into a file that is not ours. Every daemon's
// configuration has # for comments.
const (
	blockBegin = "# BEGIN ntsagent: written by `ntsagent daemon apply`, undone by `ntsagent daemon revert`"
	blockEnd   = "# END ntsagent"
	beginMark  = "# BEGIN ntsagent"
)

// insertBlock puts lines between our markers behind line number after of conf,
// counted from 1; 0 is the beginning. A number beyond the last is the end.
func insertBlock(conf []byte, after int, lines []string) []byte {
	var out bytes.Buffer
	block := blockBegin + "\n" + strings.Join(lines, "\n") + "\n" + blockEnd + "\n"
	n, done := 0, false
	put := func() {
		if b := out.Bytes(); len(b) > 0 && b[len(b)-1] != '\n' {
			out.WriteByte('\n')
		}
		out.WriteString(block)
		done = true
	}
	if after == 0 {
		put()
	}
	for line := range bytes.Lines(conf) {
		out.Write(line)
		if n++; n == after {
			put()
		}
	}
	if !done {
		put()
	}
	return out.Bytes()
}

// removeBlocks takes out whatever stands between our markers. A marker without
// its end, or an end without its beginning, is an error that names the line.
func removeBlocks(conf []byte) ([]byte, error) {
	out := make([]byte, 0, len(conf))
	n, begun := 0, 0
	for line := range bytes.Lines(conf) {
		n++
		text := strings.TrimSpace(string(line))
		switch {
		case strings.HasPrefix(text, beginMark):
			if begun != 0 {
				return nil, fmt.Errorf("line %d: `%s` within another one that begins in line %d", n, beginMark, begun)
			}
			begun = n
		case text == blockEnd:
			if begun == 0 {
				return nil, fmt.Errorf("line %d: `%s` without its beginning", n, blockEnd)
			}
			begun = 0
		case begun == 0:
			out = append(out, line...)
		}
	}
	if begun != 0 {
		return nil, fmt.Errorf("line %d: `%s` without its end", begun, beginMark)
	}
	return out, nil
}

// hasBlock tells whether one of our markers is in conf.
func hasBlock(conf []byte) bool {
	for line := range bytes.Lines(conf) {
		if text := strings.TrimSpace(string(line)); strings.HasPrefix(text, beginMark) || text == blockEnd {
			return true
		}
	}
	return false
}
