// Package backend drives one backend. A Planner computes what the kernel must hold, purely; the Loop gives it the whole
// set of leases whenever something may have changed, and puts the plan into the kernel until that has succeeded.
package backend
