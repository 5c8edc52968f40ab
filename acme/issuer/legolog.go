package issuer

import (
	"fmt"
	"strings"
	"sync"

	legolog "github.com/go-acme/lego/v4/log"
	"github.com/hashicorp/go-hclog"
)

// legoLogOnce guards lego's logger, which is a variable of its package: left alone it writes to standard error, and it may be set
// only while no order is under way. So the first Issuer of the process sets it, and for good.
var legoLogOnce sync.Once

func redirectLegoLog(log hclog.Logger) {
	legoLogOnce.Do(func() { legolog.Logger = legoLog{log.Named("lego")} })
}

// legoLog writes what lego has to say at debug level: its warnings come back as errors, and those are logged once, by the Manager.
// lego never means to exit through it.
type legoLog struct{ log hclog.Logger }

func (l legoLog) Print(args ...any)                 { l.line(fmt.Sprint(args...)) }
func (l legoLog) Println(args ...any)               { l.line(fmt.Sprintln(args...)) }
func (l legoLog) Printf(format string, args ...any) { l.line(fmt.Sprintf(format, args...)) }
func (l legoLog) Fatal(args ...any)                 { l.line(fmt.Sprint(args...)) }
func (l legoLog) Fatalln(args ...any)               { l.line(fmt.Sprintln(args...)) }
func (l legoLog) Fatalf(format string, args ...any) { l.line(fmt.Sprintf(format, args...)) }

func (l legoLog) line(s string) {
	if l.log.IsDebug() {
		l.log.Debug("acme client", "text", redact(strings.TrimSpace(s)))
	}
}
