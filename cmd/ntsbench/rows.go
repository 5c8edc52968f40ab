package main

import (
	"fmt"
	"slices"
	"strings"

	"ntsagent/cmd/ntsbench/load"
)

// The rows of key exchanges, of NTP and of memory.
const (
	rowKEFloor        = "server CPU per key exchange, X25519, to floor"
	rowKEChronyd      = "server CPU per key exchange, X25519, to chronyd"
	rowKEDefaultFloor = "server CPU per key exchange, X25519MLKEM768, to floor"
	rowKETime         = "median time of a key exchange, X25519"
	rowKEDefaultTime  = "median time of a key exchange, X25519MLKEM768"

	rowNTS         = "server CPU per NTS query (chronyd, the agent's keys), to UDP echo"
	rowNTSTime     = "99 % of NTS queries answered within"
	rowNTSOffset   = "median clock offset in NTS queries"
	rowPlain       = "server CPU per plain NTP query (chronyd), to UDP echo"
	rowPlainTime   = "99 % of plain NTP queries answered within"
	rowPlainOffset = "median clock offset in plain NTP queries"

	rowIdleMemory = "memory when idle (RSS)"
	rowPerSession = "memory per idle TLS session (RSS)"
	rowClosed     = "last silent connection closed after"
)

// evicting ends the name of a row like another, but at the agent's default limit.
// evictingText is what is printed of it below that other.
const (
	evicting     = " at the default ke.max_sessions"
	evictingText = evicting + " (oldest evicted)"
)

// rowNewClients is the row of new clients beside n connections of the kind.
func rowNewClients(k load.Kind, n int) string {
	silent := map[load.Kind]string{load.TCP: "silent TCP connections", load.HalfHello: "half-sent hellos", load.Finished: "finished handshakes"}[k]
	return fmt.Sprintf("slowest of %d new clients beside %d %s", probes, n, silent)
}

// rowNames are the rows in the order in which they are printed.
type rowNames struct{ judged, gateway, information []string }

// namesOf are all rows of a bench with so many idle connections.
func namesOf(idle int) rowNames {
	n := rowNames{
		judged:      []string{rowKEFloor, rowKEChronyd, rowKEDefaultFloor, rowIdleMemory, rowPerSession},
		information: []string{rowKETime, rowKEDefaultTime, rowNTS, rowNTSTime, rowNTSOffset, rowPlain, rowPlainTime, rowPlainOffset, rowGatewayLeast, rowGatewaySpeed, rowGatewayBusy, rowGatewayLatency},
		gateway:     gatewayRows,
	}
	for _, k := range load.Kinds {
		n.judged = append(n.judged, rowNewClients(k, idle), rowNewClients(k, idle)+evicting)
	}
	n.judged = append(n.judged, rowClosed)
	return n
}

// all are the names of all blocks.
func (n rowNames) all() []string { return slices.Concat(n.judged, n.gateway, n.information) }

// words choose rows: those that contain one of them, in any case. No words
// choose all.
type words []string

func (w words) choose(what string) bool {
	return len(w) == 0 || slices.ContainsFunc(w, func(word string) bool {
		return strings.Contains(strings.ToLower(what), strings.ToLower(word))
	})
}
