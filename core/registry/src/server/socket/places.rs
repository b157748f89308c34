//! How many sockets of a kind may be open (REG-300), and how many are.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;

use parking_lot::Mutex;

use crate::server::auth::lockout::network;

/// The places of one kind of socket.
#[derive(Clone, Debug)]
pub(super) struct Places(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    max: usize,
    taken: Mutex<Taken>,
}

#[derive(Debug, Default)]
struct Taken {
    seated: usize,
    waiting: usize,
    waiting_by_address: HashMap<IpAddr, usize>,
}

/// A socket's place; given back when dropped.
#[derive(Debug)]
pub(super) struct Place {
    places: Places,
    seat: Seat,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Seat {
    Seated,
    /// Not authenticated yet, from this address.
    Waiting(IpAddr),
}

impl Places {
    /// Room for `max` sockets.
    pub(super) fn new(max: usize) -> Self {
        Places(Arc::new(Inner { max, taken: Mutex::default() }))
    }

    /// A place of a socket that needs no authentication; `None` when all are taken.
    pub(super) fn seat(&self) -> Option<Place> {
        let mut taken = self.0.taken.lock();
        if taken.seated >= self.0.max {
            return None;
        }
        taken.seated += 1;
        Some(Place { places: self.clone(), seat: Seat::Seated })
    }

    /// A place among those who have yet to say who they are; `None` when all seats are taken, twice as many wait
    /// as there are seats (at least 8), or as many from this address as there are seats: strangers at one address cannot
    /// keep the others out.
    pub(super) fn wait(&self, address: IpAddr) -> Option<Place> {
        let (most, address) = (self.0.max.saturating_mul(2).max(8), network(address));
        let mut taken = self.0.taken.lock();
        let own = taken.waiting_by_address.get(&address).copied().unwrap_or_default();
        if taken.seated >= self.0.max || taken.waiting >= most || own >= most / 2 {
            return None;
        }
        taken.waiting += 1;
        *taken.waiting_by_address.entry(address).or_default() += 1;
        Some(Place { places: self.clone(), seat: Seat::Waiting(address) })
    }

    /// Sockets open now, authenticated or not.
    pub(super) fn live(&self) -> usize {
        let taken = self.0.taken.lock();
        taken.seated + taken.waiting
    }

    /// Sockets that are authenticated or need no authentication.
    pub(super) fn seated(&self) -> usize {
        self.0.taken.lock().seated
    }
}

impl Taken {
    fn leave(&mut self, seat: Seat) {
        match seat {
            Seat::Seated => self.seated -= 1,
            Seat::Waiting(address) => {
                self.waiting -= 1;
                if let Some(own) = self.waiting_by_address.get_mut(&address) {
                    *own -= 1;
                    if *own == 0 {
                        self.waiting_by_address.remove(&address);
                    }
                }
            }
        }
    }
}

impl Place {
    /// From those who wait to the seats; false when no seat is free.
    pub(super) fn take_seat(&mut self) -> bool {
        if self.seat == Seat::Seated {
            return true;
        }
        let mut taken = self.places.0.taken.lock();
        if taken.seated >= self.places.0.max {
            return false;
        }
        taken.leave(self.seat);
        taken.seated += 1;
        self.seat = Seat::Seated;
        true
    }
}

impl Place {
    /// Sockets of its kind that have a seat.
    pub(super) fn seated(&self) -> usize {
        self.places.seated()
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.places.0.taken.lock().leave(self.seat);
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;

    fn address(last: u8) -> IpAddr {
        IpAddr::V4(Ipv4Addr::new(10, 0, 0, last))
    }

    /// Rules: REG-300
    #[test]
    fn a_place_is_taken_and_given_back() {
        let places = Places::new(2);
        let (one, two) = (places.seat().unwrap(), places.seat().unwrap());
        assert!(places.seat().is_none());
        drop(one);
        let three = places.seat().unwrap();
        assert_eq!(places.live(), 2);
        drop((two, three));
        assert_eq!(places.live(), 0);
    }

    /// Rules: REG-300
    #[test]
    fn those_who_wait_are_bounded_and_keep_nobody_of_another_address_out() {
        let places = Places::new(2);
        let rude: Vec<_> = std::iter::from_fn(|| places.wait(address(1))).collect();
        assert_eq!(rude.len(), 4);
        let mut polite = places.wait(address(2)).unwrap();
        assert!(polite.take_seat() && polite.take_seat());
        assert_eq!((places.seated(), places.live()), (1, 5));
        let four: Vec<_> = (3..7).map(|last| places.wait(address(last)).unwrap()).collect();
        assert!(places.wait(address(7)).is_none(), "as many wait as may");
        drop((rude, polite));
        assert_eq!(places.0.taken.lock().waiting_by_address.len(), 4);
        drop(four);
        assert_eq!(places.live(), 0);
    }

    /// Rules: REG-300
    #[test]
    fn a_network_of_one_host_counts_as_one_address() {
        let places = Places::new(2);
        let own = |last: u16| IpAddr::V6(std::net::Ipv6Addr::new(0x2001, 0xdb8, 0, 1, 0, 0, 0, last));
        let rude: Vec<_> = (1..100).filter_map(|last| places.wait(own(last))).collect();
        assert_eq!(rude.len(), 4);
        assert!(places.wait(address(2)).is_some(), "others still get in");
    }

    /// Rules: REG-300
    #[test]
    fn no_seat_is_given_twice() {
        let places = Places::new(1);
        let (mut one, mut two) = (places.wait(address(1)).unwrap(), places.wait(address(2)).unwrap());
        assert!(one.take_seat());
        assert!(!two.take_seat());
        assert!(places.wait(address(3)).is_none(), "the handshake is refused once the seats are taken");
        drop(one);
        assert!(two.take_seat());
    }
}
