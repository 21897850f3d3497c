// Package backend drives one backend: the Loop computes nothing itself, it hands the whole set of leases to
// the backend whenever something may have changed, and again until that succeeded.
package backend
