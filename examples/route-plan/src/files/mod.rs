//! Reads routing instances and their best-known routes from a folder of text files.
//!
//! An instance `0025_X.txt` holds the vehicle's capacity, the number of customers, then a row
//! `id x y demand ready due service` for the depot, which is customer 0, and for each customer.
//! `best_known_25.txt` holds, for each instance, a header `name vehicles distance nodes` and a line
//! per route: its number of stops, then its customers in order. Blank lines separate the instances.
//! The nodes are those that a search visited; they are not read.
//!
//! What is malformed is refused with the file, the line, what was expected and what was found;
//! nothing is guessed.
//! Whether a route can be driven is not judged here, see [`Schedule`](crate::schedule::Schedule):
//! a file may well hold a route that a plan must refuse.

mod best_known;
mod error;
#[cfg(test)]
mod fixture;
mod folder;
mod instance;
mod solved;
mod text;

pub(crate) use folder::read_folder;
pub(crate) use solved::Solved;
