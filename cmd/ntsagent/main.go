// Ntsagent obtains a certificate, serves NTS key exchange (RFC 8915) with it
// and hands the cookie keys to the NTP daemon beside it.
package main

import (
	"context"
	"os"
)

func main() {
	os.Exit(execute(context.Background(), os.Args[1:], os.Stdout, os.Stderr))
}
