//go:build race

package acme

// fraction is what part of the lifetimes a simulation lives: under the race
// detector all is several times as slow, and the simulation is one goroutine.
const fraction = 5
