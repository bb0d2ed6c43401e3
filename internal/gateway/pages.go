package gateway

import (
	"context"
	"math"
	"slices"
	"strconv"

	"github.com/comanda-mq/comanda/internal/auth"
	"github.com/comanda-mq/comanda/internal/catalog"
)

// newestFirst checks what is asked of a list that has the newest first, and returns the
// number below which it begins, and the catalog. A node that is cut off lists what it
// knew last.
func (g *Gateway) newestFirst(ctx context.Context, limit int, page string) (below uint64, v *catalog.View, err error) {
	if err := g.authorize(ctx, auth.Observe, ""); err != nil {
		return 0, nil, err
	}
	if err := checkLimit(limit); err != nil {
		return 0, nil, err
	}
	if below, err = pageBelow(page); err != nil {
		return 0, nil, err
	}
	fresh, cancel := context.WithTimeout(ctx, freshWithin)
	defer cancel()
	_ = g.o.Refresh(fresh)
	return below, g.newest.Load(), nil
}

// pageBelow is the number below which a page of what is listed the newest first
// begins.
func pageBelow(page string) (below uint64, err error) {
	if page == "" {
		return math.MaxUint64, nil
	}
	if below, err = strconv.ParseUint(page, 10, 64); err != nil {
		return 0, errPage
	}
	return below, nil
}

// newestBelow are up to limit of all, which are in the order of their numbers, the
// newest below a number first, and the next page; empty at the end.
func newestBelow[T any](all []T, below uint64, limit int, number func(T) uint64) (page []T, next string) {
	for _, x := range slices.Backward(all) {
		switch {
		case number(x) >= below:
		case len(page) == limit:
			return page, strconv.FormatUint(number(page[limit-1]), 10)
		default:
			page = append(page, x)
		}
	}
	return page, ""
}
