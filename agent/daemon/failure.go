package daemon

// Failure is an error with its remedy.
type Failure struct {
	What string // what failed, on what
	Kind error  // for errors.Is, one that the package has which returns it
	Err  error  // the cause, if there is one beneath
	Fix  string // what to do
}

// Error is one line.
func (f *Failure) Error() string {
	s := f.What + ": " + f.Kind.Error()
	if f.Err != nil {
		s += ": " + f.Err.Error()
	}
	return s + "; fix: " + f.Fix
}

// Unwrap gives Kind and Err to errors.Is.
func (f *Failure) Unwrap() []error {
	if f.Err == nil {
		return []error{f.Kind}
	}
	return []error{f.Kind, f.Err}
}
