package store

import (
	"errors"
	"io/fs"
)

// repair brings one name's folder from wherever a crash left it to a state Commit could have left.
func repair(dir string) error {
	current, err := settle(dir, keysOf(dir))
	if err != nil || current == 0 {
		return err
	}
	p, err := readPair(dir, current)
	if err != nil {
		return err
	}
	// The next order, and the next request, need a key of their own.
	if err := forgetKey(dir, p.Key); err != nil {
		return err
	}
	return prune(dir, current)
}

// settle makes `current` name a whole pair if there is any, and returns its number; 0 means that there is none. What is not
// whole then is kept for a person to look at.
func settle(dir string, waiting [][]byte) (int, error) {
	order, err := generations(dir)
	if err != nil {
		return 0, err
	}
	current, err := currentOf(dir)
	if err == nil {
		_, err = readPair(dir, current)
	}
	sound := err == nil
	for _, n := range order {
		if sound && n <= current {
			break
		}
		p, err := readPair(dir, n)
		if errors.Is(err, fs.ErrNotExist) && n != current {
			// Half a generation: no crash of ours makes one, but a restored backup or a full disk may.
			if err := discard(dir, n); err != nil {
				return 0, err
			}
			continue
		}
		// A newer generation that is not current was either complete when the agent was killed, and then a key that waits is
		// still its key, or somebody has gone back to an older one on purpose, which is respected.
		if err != nil || (sound && !holds(waiting, p.Key)) {
			continue
		}
		return n, pointCurrent(dir, n)
	}
	if !sound {
		return 0, nil
	}
	return current, nil
}
