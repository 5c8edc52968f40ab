//go:build !race

package acme

// fraction is what part of the lifetimes a simulation lives.
const fraction = 1
