package main

import (
	"io"
	"strings"
	"sync/atomic"

	"github.com/letsencrypt/pebble/v2/db"
)

// narrator turns pebble's log into the story and keeps the log itself.
type narrator struct {
	story    *story
	log      io.WriteCloser
	proofs   map[string]string // where the authority asks for the proof, by challenge
	store    *db.MemoryStore   // set before pebble writes its first line
	answered atomic.Value      // string: the challenge that convinced the authority
}

// Write takes one line of pebble's log; the two lines about a challenge name it
// by its id, last.
func (n *narrator) Write(line []byte) (int, error) {
	text := strings.TrimSpace(string(line))
	id := text[strings.LastIndexByte(text, ' ')+1:]
	switch {
	case strings.Contains(text, " set VALID by completed challenge "):
		if c := n.store.GetChallengeByID(id); c != nil {
			n.answered.Store(c.Type)
			n.story.tell("challenge", "%s: the authority took the proof from %s and was convinced", c.Type, n.proofs[c.Type])
		}
	case strings.Contains(text, " set INVALID by completed challenge "):
		if c := n.store.GetChallengeByID(id); c != nil {
			c.RLock()
			why := c.Error
			c.RUnlock()
			n.story.tell("challenge", "%s FAILED: the authority asked for the proof at %s and was not convinced: %v", c.Type, n.proofs[c.Type], why)
		}
	}
	return n.log.Write(line)
}
